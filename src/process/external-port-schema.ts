/**
 * Schema of external ports: what a switch's outer side is, in cluster and node files.
 *
 *     { type: af-packet, interface: eth1 }            a network interface
 *     { type: af-xdp, interface: eth1 }               the same, past the host's own stack
 *     { type: tap, interface: nf0 }                   an interface whose other end is the switch
 *     { type: af-packet, interface: eth1, router: { addresses: [192.0.2.1/24] } }      a router there, and not a cable
 *     { type: capture, input: web.pcap, output: out.pcapng }
 *     { type: generator, flows: 100 }, { type: sink } traffic from one switch to the other, checked there
 */

import { z } from 'zod'
import { readRouterConfig } from '../ports/router/router-config.ts'

export const interfaceName = z.string().regex(/^[^\s/:%]{1,15}$/, 'an interface has a name of 1 to 15 characters without spaces, / : and %')
const namespace = z.string().min(1).optional().describe('Network namespace of the interface: a name that ip netns knows, or a path')
const segments = z.enum(['pass', 'cut']).optional()
  .describe('TCP segments that a card was to cut: passed whole (unless told), or cut before the chain')

const router = z.strictObject({
  addresses: z.array(z.string()).min(1).max(16).describe('Its own addresses, each with the length of its network: 192.0.2.1/24'),
  routes: z.record(z.string(), z.string()).default({}).describe('Next hops of other networks: { 0.0.0.0/0: 192.0.2.254 }'),
  mac: z.string().regex(/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/, 'an Ethernet address of one station has the form 02:00:5e:00:00:01').optional()
    .describe('Its Ethernet address; made of its addresses unless told'),
}).superRefine((text, context) => {
  const read = readRouterConfig(text)
  if ('config' in read) return
  for (const { path, message } of read.mistakes) context.addIssue({ code: 'custom', path: [...path], message })
}).optional().describe('The switch is a router between the networks at its two sides; without, it is a cable')

/** What generator and sink have to agree on. */
const trafficFields = {
  seed: z.int().min(0).max(0xffffffff).default(1).describe('The same on generator and sink'),
  flows: z.int().min(1).max(2 ** 20).default(100).describe('Flows at once, the same on generator and sink'),
}

export const externalPortSchema = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('af-packet'), interface: interfaceName, namespace, segments, router,
    frames: z.int().min(1).max(8192).optional().describe('Frames in each ring, 68 KiB each'),
  }).describe('A network interface, through a packet socket'),
  z.strictObject({
    type: z.literal('af-xdp'), interface: interfaceName, namespace, router,
    frames: z.literal([64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768]).optional()
      .describe('Frames in the rings of each receive queue, 2 or 4 KiB each, locked in memory; 4096 unless told'),
    mode: z.enum(['zero-copy', 'copy', 'generic']).optional()
      .describe('The quickest way to have frames that is tried: zero-copy unless told, then the driver and a copy, then the kernel and a copy'),
    fallback: z.boolean().default(true)
      .describe('A packet socket is used where the privilege or the feature of the kernel is missing; false: the switch fails'),
  }).describe('A network interface, through AF_XDP sockets: the host\'s own stack gets nothing of it'),
  z.strictObject({
    type: z.literal('tap'), interface: interfaceName, namespace, segments, router,
    mtu: z.int().min(68).max(65_521).optional(),
  }).describe('A network interface that the switch makes'),
  z.strictObject({
    type: z.literal('capture'),
    input: z.string().optional().describe('Capture to play'),
    output: z.string().optional().describe('Capture to write'),
    speed: z.number().positive().optional().describe('How many times faster than recorded; as fast as possible unless told'),
  }).describe('Capture files'),
  z.strictObject({
    type: z.literal('generator'), ...trafficFields,
    packetsPerSecond: z.number().positive().default(10_000),
    frameBytes: z.int().min(60).max(9000).default(60),
    turns: z.int().min(1).optional().describe('Packets of a flow, then it ends; for ever unless told'),
    packets: z.int().min(1).optional().describe('Packets in all; no limit unless told'),
  }).describe('Makes UDP flows, for a sink at the other switch'),
  z.strictObject({ type: z.literal('sink'), ...trafficFields }).describe('Checks what a generator at the other switch has made'),
  z.strictObject({ type: z.literal('none') }).describe('Nothing'),
])

export type ExternalPortConfig = z.output<typeof externalPortSchema>
