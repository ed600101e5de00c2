/**
 * Machine configuration: what the agent of one machine is started with, a file in YAML or JSON.
 *
 *     cluster: web
 *     host: 192.0.2.2
 *     token: token.txt
 *     tls: { certificate: two.pem, key: two.key }
 */

import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import { isLoopback } from '../rpc/loopback.ts'
import { apiTlsSchema, clusterNameSchema, PORT_MAX } from './cluster-file.ts'
import { readChecked } from './node-config.ts'

export const MACHINE_PORT = 7090

const machineConfigSchema = z.strictObject({
  cluster: clusterNameSchema.describe('Name of the cluster whose runtimes this machine takes'),
  host: z.string().min(1).default('127.0.0.1').describe('Address to listen at'),
  port: z.int().min(1).max(PORT_MAX).default(MACHINE_PORT).describe('TCP port to listen at'),
  token: z.string().min(1).describe('File of the cluster\'s token, for its owner alone'),
  tls: apiTlsSchema.optional(),
  clear: z.boolean().default(false).describe('Listens at an address that others can reach without tls'),
  nfFolder: z.string().min(1).optional().describe('Where relative names of network functions start; this file\'s folder unless told'),
}).refine(({ host, tls, clear }) => tls !== undefined || clear || isLoopback(host),
  'an address that others can reach needs tls, or clear: true on a network that is trusted')

export type MachineConfig = z.output<typeof machineConfigSchema> & {
  /** Where relative names start. */
  readonly folder: string
  readonly nfFolder: string
}

/** @throws CodedError `NF_FILE_...`, `NF_CONFIG_SYNTAX`, `NF_CONFIG_INVALID` */
export function readMachineConfig(file: string): MachineConfig {
  const config = readChecked(file, machineConfigSchema)
  const folder = dirname(resolve(file))
  return { ...config, folder, nfFolder: resolve(folder, config.nfFolder ?? '.') }
}
