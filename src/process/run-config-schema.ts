/**
 * The schema of a run's configuration file. It checks the file, fills in the defaults, and is given to editors as JSON
 * Schema. What is inside an NF's `config` is checked by that NF's own schema (run-config.ts).
 *
 *     chain:
 *       - monitor
 *       - nf: firewall
 *         config: { ... }
 *     limits: { flows: 100000 }
 *     timeouts: { udp: 60 }
 *     policy: { nonIp: drop }
 */

import { z } from 'zod'
import { defaultLimits, defaultTimeouts, type EngineLimits, type IdleTimeouts } from '../base/limits.ts'
import { CHAIN_NFS_MAX } from '../nf/chain.ts'
import type { AnyNfDefinition } from '../nf/definition.ts'
import { defaultPolicy, type EnginePolicy } from '../runtime/engine.ts'

/** Longest timeout: the engine's timers count milliseconds with 32 bits. */
const TIMEOUT_SECONDS_MAX = 1_000_000
/** No limit in bytes can be more than the arena has. */
const BYTES_MAX = 2 ** 31

const count = (name: keyof EngineLimits, maximum: number, description: string, minimum = 1) =>
  z.int().min(minimum).max(maximum).default(defaultLimits[name]).describe(description)

export const limitsSchema = z.strictObject({
  flows: count('flows', 2 ** 26, 'Flows at once'),
  unanswered: count('unanswered', 2 ** 22, 'TCP flows at once whose SYN nobody has answered: with more, the oldest of them ends'),
  packets: count('packets', 2 ** 20, 'Packet slots for ordinary frames, 2 KiB each', 64),
  largePackets: count('largePackets', 2 ** 14, 'Packet slots for frames of up to 72 KiB', 1),
  extentBytes: count('extentBytes', BYTES_MAX, 'Bytes of variable-size flow state, in total', 4096),
  recordBytes: count('recordBytes', BYTES_MAX, 'Bytes of events that wait to be written', 65536),
  heldPerFlow: count('heldPerFlow', 65535, 'Packets that network functions may hold per flow', 0),
  aliases: count('aliases', 16_777_216, 'Alias keys of translated flows'),
  fragmentedDatagrams: count('fragmentedDatagrams', 2 ** 20, 'Fragmented datagrams tracked at once'),
  fragmentsHeld: count('fragmentsHeld', 2 ** 20, 'Fragments kept that came before their first one, in total', 0),
  fragmentsHeldPerDatagram: count('fragmentsHeldPerDatagram', 8192, 'The same, per datagram', 0),
}).describe('Bounds of the engine; their memory is reserved at start and touched only as it is used')

const seconds = (name: keyof IdleTimeouts, description: string) =>
  z.number().min(0.001).max(TIMEOUT_SECONDS_MAX).default(defaultTimeouts[name]).describe(description)

export const timeoutsSchema = z.strictObject({
  tcpOpening: seconds('tcpOpening', 'TCP before the handshake is answered'),
  tcp: seconds('tcp', 'TCP after that'),
  tcpClosed: seconds('tcpClosed', 'TCP after RST, or FIN in both directions'),
  udp: seconds('udp', 'UDP'),
  icmp: seconds('icmp', 'ICMP and ICMPv6'),
  other: seconds('other', 'Other IP protocols'),
  fragment: seconds('fragment', 'Fragments of one datagram'),
}).describe('Seconds that a flow may be idle before it ends')

export const policySchema = z.strictObject({
  nfError: z.enum(['drop', 'bypass']).default(defaultPolicy.nfError)
    .describe('After a network function threw on a flow: drop the flow\'s packets, or go on without the function'),
  nonIp: z.enum(['pass', 'drop']).default(defaultPolicy.nonIp).describe('Frames that are not IP'),
  whenFull: z.enum(['drop', 'evict']).default(defaultPolicy.whenFull)
    .describe('At the limit on flows: drop packets of new flows, or end one that is closed, unanswered or long idle'),
}).describe('What to do in doubtful cases')

const nfName = z.string().min(1)
  .describe('A built-in network function, a .ts or .js file (relative to this file), or a package')

const chainEntrySchema = z.union([
  nfName,
  z.strictObject({
    nf: nfName,
    config: z.record(z.string(), z.unknown()).optional().describe('Configuration of the network function'),
  }),
])

export const runConfigSchema = z.strictObject({
  $schema: z.string().optional().describe('Where editors find the schema of this file'),
  chain: z.array(chainEntrySchema).min(1).max(CHAIN_NFS_MAX).optional().describe('The network functions, in order'),
  limits: limitsSchema.prefault({}),
  timeouts: timeoutsSchema.prefault({}),
  policy: policySchema.prefault({}),
}).describe('Configuration of nfactor run')

/** The file's content, checked and with its defaults. */
export type RunConfigDocument = z.output<typeof runConfigSchema>

/** What the engine takes of it. The types hold that the schemas have the engine's names, all of them. */
export function engineSettings({ limits, timeouts, policy }: RunConfigDocument):
    { readonly limits: EngineLimits; readonly timeouts: IdleTimeouts; readonly policy: EnginePolicy } {
  return { limits, timeouts, policy }
}

type JsonSchema = Record<string, unknown>

/** JSON Schema of an NF's configuration, `undefined` if it takes none. */
export function nfConfigJsonSchema(definition: AnyNfDefinition): JsonSchema | undefined {
  if (definition.config === undefined) return undefined
  const { $schema: _, ...schema } = z.toJSONSchema(strict(definition.config), { io: 'input', unrepresentable: 'any' })
  return schema as JsonSchema
}

/** A schema that refuses keys it does not know, also if its author did not say so. */
export function strict(schema: z.ZodType): z.ZodType {
  const object = schema as { _zod?: { def?: { type?: string; catchall?: unknown } }; strict?: () => z.ZodType }
  const { type, catchall } = object._zod?.def ?? {}
  return type === 'object' && catchall === undefined && object.strict !== undefined ? object.strict() : schema
}

/**
 * JSON Schema of the configuration file for editors, with the configuration of the given NFs.
 *
 * @param of the schema, or one that has more than that of a run
 */
export function runConfigJsonSchema(builtIns: readonly AnyNfDefinition[], of: z.ZodType = runConfigSchema): JsonSchema {
  const schema = z.toJSONSchema(of, { io: 'input' }) as unknown as {
    properties: { chain: { items: { anyOf: [JsonSchema, { properties: JsonSchema & { nf: JsonSchema } }] } } }
  }
  const { items } = schema.properties.chain
  const [byName, other] = items.anyOf
  const names = builtIns.map((definition) => definition.name)
  const { properties } = other
  const withConfig = builtIns.map((definition) => ({
    type: 'object',
    description: definition.description,
    properties: {
      nf: { const: definition.name, description: definition.description },
      config: nfConfigJsonSchema(definition) ?? { type: 'object', additionalProperties: false },
    },
    required: ['nf'],
    additionalProperties: false,
  }))
  const elsewhere = { ...other, properties: { ...properties, nf: { ...properties.nf, not: { enum: names } } } }
  return {
    ...schema,
    properties: {
      ...schema.properties,
      chain: {
        ...schema.properties.chain,
        items: { anyOf: [{ enum: names }, byName, ...withConfig, elsewhere] },
      },
    },
  }
}
