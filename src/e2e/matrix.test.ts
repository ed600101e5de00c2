/**
 * The end-to-end matrix: real programs on both sides of a cluster, and one fault after the other. Whatever happens, all transfers are
 * complete and as they were sent, no connection is reset, no datagram comes twice, and the cluster is ready afterwards. Stalls are
 * measured and reported, and long ones are failures.
 *
 * `npm test` runs the short case alone, `npm run test:full` all of it.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { networkSkip } from '../ports/test-network.ts'
import type { ClusterFlow } from '../process/operator.ts'
import { Bed } from './bed.ts'
import { gateAfter, gateBefore, slowNf } from './gate-nfs.ts'
import { missingPrograms } from './services.ts'

const skip = networkSkip() || (missingPrograms.length > 0 && `not installed: ${missingPrograms.join(', ')}`)
const fullSkip = skip || (process.env['NFACTOR_FULL'] === undefined && 'NFACTOR_FULL is not set')
const timeout = 180_000
const WARM_MS = 2000
/** Before a fault that is to meet a cluster that has been at work for a while: in the first seconds all processes compile what they run. */
const STEADY_MS = 8000

test('short: all programs work while their flows move', { skip, timeout: 60_000 }, async (context) => {
  const bed = await Bed.make(context, { runtimes: 2 })
  await bed.under(context, { downloads: 10, iperfSeconds: 4, files: bed.services.files.slice(0, 1) }, async () => {
    for (let round = 0; round < 4; round++) await moveAll(bed, ['runtime-1', 'runtime-2'], round)
  })
})

/** Orders all flows of one runtime to the next; does not wait for the last of them: others come all the time. */
async function moveAll(bed: Bed, names: readonly string[], round: number): Promise<void> {
  await bed.cluster.ask('Migrate', { from: names[round % names.length], to: names[(round + 1) % names.length] })
  await sleep(250)
}

test('a bridge in the place of the cluster', { skip: fullSkip, timeout }, async (context) => {
  const bed = await Bed.make(context, { isBridged: true })
  await bed.under(context, {}, () => sleep(15_000))
})

test('nothing happens', { skip: fullSkip, timeout }, async (context) => {
  const bed = await Bed.make(context, {})
  await bed.under(context, {}, () => sleep(15_000))
})

test('every flow moves all the time', { skip: fullSkip, timeout }, async (context) => {
  const bed = await Bed.make(context, {})
  await bed.under(context, {}, async () => {
    const names = await bed.runtimes()
    for (let round = 0; round < 40; round++) await moveAll(bed, names, round)
    const flows = await bed.cluster.flows('tcp')
    const moved = flows.filter(({ epoch }) => epoch > 4).length
    context.diagnostic(`${moved} of ${flows.length} flows have moved at least four times`)
    assert.ok(moved > 10)
  })
})

test('runtimes are killed, their flows go on at their replicas', { skip: fullSkip, timeout }, async (context) => {
  const bed = await Bed.make(context, { replication: 'commit' })
  await bed.under(context, {}, async () => {
    for (let round = 0; round < 2; round++) {
      await sleep(WARM_MS)
      await bed.kill((await bed.runtimes())[0])
      await sleep(3000)
    }
  })
})

for (const name of ['ingress', 'egress']) {
  test(`${name} is killed`, { skip: fullSkip, timeout }, async (context) => {
    const bed = await Bed.make(context, {})
    await bed.under(context, {}, async () => {
      await sleep(WARM_MS)
      await bed.kill(name)
      await sleep(3000)
    })
  })
}

test('the controller that leads is killed', { skip: fullSkip, timeout }, async (context) => {
  const bed = await Bed.make(context, { more: 'controllers: 3' })
  await bed.under(context, {}, async () => {
    await sleep(WARM_MS)
    const { leader, term, nodes } = await bed.cluster.status()
    process.kill(bed.pidOf(leader), 'SIGKILL')
    const after = await bed.cluster.until('another one leads', async () => {
      const status = await bed.cluster.status().catch(() => undefined)
      return status !== undefined && status.term > term && status.isReady && status
    }, 15_000)
    const lives = (of: typeof nodes): unknown => of.map(({ name, incarnation }) => [name, incarnation])
    assert.deepEqual(lives(after.nodes), lives(nodes), 'no node was taken for dead')
    await sleep(3000)
  })
})

test('a runtime stands still for too long, and comes back', { skip: fullSkip, timeout }, async (context) => {
  const bed = await Bed.make(context, { replication: 'commit' })
  await bed.under(context, {}, async () => {
    await sleep(WARM_MS)
    const [name] = await bed.runtimes()
    const { incarnation, pid } = await bed.node(name)
    process.kill(pid, 'SIGSTOP')
    await bed.cluster.until('it is fenced', async () => (await bed.cluster.events()).some((one) =>
      one.event === 'node-fenced' && one.incarnation === incarnation && one.reason === 'dead'))
    process.kill(pid, 'SIGCONT')
    await bed.cluster.until('it ends', () => Promise.resolve(!isAlive(pid)), 5000)
    await bed.cluster.until('another is there', async () => {
      const { isReady, nodes } = await bed.cluster.status()
      return isReady && nodes.every((one) => one.incarnation !== incarnation)
    }, 15_000)
    const owners = new Map<number, string[]>()
    for (const { flow, node, phase } of await bed.cluster.flows('')) {
      if (phase === 'active') owners.set(flow, [...owners.get(flow) ?? [], node])
    }
    for (const [flow, nodes] of owners) assert.equal(nodes.length, 1, `flow ${flow} lives on ${nodes.join()}`)
    await sleep(3000)
  })
})

test('a machine is lost with all its runtimes, their flows go on at replicas on the other', { skip: fullSkip, timeout }, async (context) => {
  const bed = await Bed.make(context, { replication: 'commit', machines: 2, runtimes: 4 })
  await bed.under(context, {}, async () => {
    await sleep(STEADY_MS)
    const { machines } = bed
    assert.ok(machines !== undefined)
    const lost = machines.processes(1).map(({ name, incarnation }) => ({ name, incarnation }))
    const flows = await bed.cluster.flows('tcp')
    const theirs = flows.filter(({ node }) => lost.some(({ name }) => name === node)).map(({ flow }) => flow)
    assert.deepEqual(lost.map(({ name }) => name).sort(), ['runtime-2', 'runtime-4'])
    assert.ok(theirs.length > 10, 'they have flows')
    machines.lose(1)
    await bed.cluster.until('the cluster is ready without them', async () => {
      const { isReady, nodes } = await bed.cluster.status()
      return isReady && nodes.every(({ incarnation, machine }) => machine === 'one' && lost.every((one) => one.incarnation !== incarnation))
    }, 30_000)
    const after = new Set((await bed.cluster.flows('tcp')).map(({ flow }) => flow))
    const kept = theirs.filter((flow) => after.has(flow)).length
    context.diagnostic(`${kept} of ${theirs.length} connections of the lost machine live on`)
    assert.ok(kept > theirs.length / 2, 'many of them still run')
    await sleep(3000)
  })
})

test('a network function is updated, to another layout of its state', { skip: fullSkip, timeout }, async (context) => {
  const bed = await Bed.make(context, {
    chain: '[monitor, firewall, ./gate-1.ts, http]', files: { 'gate-1.ts': gateBefore, 'gate-2.ts': gateAfter } })
  await bed.under(context, {}, async () => {
    await sleep(WARM_MS)
    const before = new Map((await bed.cluster.flows('tcp')).map(({ flow, packets = 0 }) => [flow, packets]))
    const file = bed.cluster.write('next.yaml', bed.clusterFile({ chain: '[monitor, firewall, ./gate-2.ts, http]' }))
    const { stdout, stderr } = await bed.cluster.callSlowly('update', file, '--name', 'e2e')
    assert.match(stdout + stderr, /^done: all flows are on version 2/)
    const { flows } = await bed.cluster.ask<{ flows: ClusterFlow[] }>('Flows', { filter: 'tcp', state: true })
    const old = flows.filter(({ flow }) => before.has(flow))
    context.diagnostic(`${old.length} connections have lived through the update`)
    assert.ok(old.length > 10)
    const gates = old.map(({ flow, state }) => ({ flow, ...state?.['gate'] as { isOpen: boolean, packets: number, bytes: number } }))
    for (const { flow, isOpen, packets } of gates) {
      assert.ok(isOpen && packets >= (before.get(flow) ?? Infinity), `flow ${flow}: ${packets} packets, ${before.get(flow)} before`)
    }
    assert.ok(gates.filter(({ bytes }) => bytes > 0).length > 10, 'the new version counts bytes of what goes on')
  })
})

test('the number of runtimes follows the load', { skip: fullSkip, timeout: 240_000 }, async (context) => {
  const bed = await Bed.make(context, { runtimes: 1, more: 'scale: { min: 1, max: 3, pause: 2 }',
    chain: '[monitor, firewall, ./slow.ts, http]', files: { 'slow.ts': slowNf } })
  const runtimes = async (): Promise<number> => (await bed.runtimes()).length
  await bed.under(context, { downloads: 8, keepAlive: 2, webSockets: 2, streams: 1, iperfSeconds: 0 }, async () => {
    const load = bed.load(15)
    await bed.cluster.until('there are more', async () => await runtimes() > 1, 15_000)
    await load
    await bed.cluster.until('one is left', async () => await runtimes() === 1, 60_000)
    const counts = (await bed.cluster.events()).filter(({ event }) => event === 'scaled').map(({ text }) => text)
    context.diagnostic(counts.join('; '))
  })
})

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
