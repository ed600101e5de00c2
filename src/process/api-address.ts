/**
 * API address: where a controller is called at TCP, from what the cluster's file says. Each controller has a port of its own, the first one
 * that of the file, the second one the next, and so on.
 */

import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { CodedError } from '../base/coded-error.ts'
import type { ServerTls } from '../rpc/http-listener.ts'
import { listenTcp, type ApiTcp } from './api-door.ts'
import type { ClusterSpec } from './cluster-file.ts'

type ApiSpec = NonNullable<ClusterSpec['api']>

/** @param id of the controller, from 1 */
export function apiTcp({ host, port }: ApiSpec, id: number): ApiTcp {
  return { host, port: port + id - 1 }
}

/** @throws CodedError `NF_FILE_NOT_FOUND`, `NF_FILE_UNREADABLE`, `NF_CONFIG_INVALID` */
export async function apiTls({ tls }: ApiSpec, folder: string): Promise<ServerTls | undefined> {
  return tls === undefined ? undefined : await serverTls(tls, folder, 'api.tls')
}

/** @param name the key that names the files, for errors, which are those of `apiTls` */
export async function serverTls(tls: NonNullable<ApiSpec['tls']>, folder: string, name: string): Promise<ServerTls> {
  const [certificate, key] = [pem(tls.certificate, folder, name), pem(tls.key, folder, name)]
  const clientAuthority = tls.clientAuthority === undefined ? undefined : pem(tls.clientAuthority, folder, name)
  try {
    const { createSecureContext } = await import('node:tls')
    createSecureContext({ cert: certificate, key, ca: clientAuthority })
  } catch (cause) {
    throw new CodedError('NF_CONFIG_INVALID', `certificate and key of ${name} cannot be used: ${(cause as Error).message}`,
      'All are PEM, and certificate and key belong together', { cause })
  }
  return { certificate, key, ...clientAuthority !== undefined && { clientAuthority } }
}

/**
 * Whether controllers that are about to start will be able to listen.
 *
 * @throws CodedError `NF_PORT_BUSY`, `NF_PORT_FAILED`, or what is wrong with the certificate
 */
export async function checkApi({ api, folder, controllers }: ClusterSpec): Promise<void> {
  if (api === undefined) return
  await apiTls(api, folder)
  for (let id = 1; id <= controllers; id++) (await listenTcp(apiTcp(api, id), (socket) => { socket.destroy() })).close()
}

/** Reads a PEM file that the key of this name names. */
export function pem(file: string, folder: string, name: string): string {
  const path = resolve(folder, file)
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    const isMissing = (cause as NodeJS.ErrnoException).code === 'ENOENT'
    throw new CodedError(isMissing ? 'NF_FILE_NOT_FOUND' : 'NF_FILE_UNREADABLE',
      `${path}, which ${name} names, cannot be read: ${(cause as Error).message}`, '', { cause })
  }
}
