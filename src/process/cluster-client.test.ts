/** Commands find the controller that leads, past those that are gone, stopped, or do not lead. */

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { CodedError } from '../base/coded-error.ts'
import { ClusterClient } from './cluster-client.ts'
import { ClusterFolder } from './cluster-folder.ts'
import { LineRpcServer } from './line-rpc.ts'

test('a controller that does not answer is passed over, and does not get the command', async (context) => {
  const home = mkdtempSync(join(tmpdir(), 'nfactor-client-'))
  const folder = new ClusterFolder(home)
  const asked: string[] = []
  const never = new Promise<never>(() => undefined)
  const serve = async (id: number, isStopped: boolean, isLeader: boolean): Promise<LineRpcServer> => {
    writeFileSync(folder.controllerFile(id), '{}')
    const server = new LineRpcServer(folder.controllerSocket(id), {
      Leader: () => (isStopped ? never : { leader: 'controller-3', isLeader }),
      Scale: () => {
        asked.push(`Scale ${id}`)
        if (!isLeader) throw new CodedError('NF_NOT_LEADER', 'it does not lead')
        return { desired: 2, isAutomatic: false }
      },
    })
    await server.open()
    return server
  }
  const servers = [await serve(1, true, true), await serve(2, false, false), await serve(3, false, true)]
  context.after(() => {
    for (const server of servers) server.close()
    rmSync(home, { recursive: true })
  })
  assert.deepEqual(await new ClusterClient('web', folder).scale(2), { desired: 2, isAutomatic: false })
  assert.deepEqual(asked, ['Scale 2', 'Scale 3'])
})
