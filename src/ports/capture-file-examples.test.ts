/**
 * The captures that come with the project: each one is read as its README says, and those that were made from one
 * another carry the same packets from layer 3 on.
 */

import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { test } from 'node:test'
import { CaptureRecorder } from '../wire/capture-recorder.ts'
import {
  LINK_PAYLOAD_UNKNOWN, LinkType, linkPayload, linkTypeName, payloadEtherType, payloadHeaderLength,
} from '../wire/link-type.ts'
import { openCaptureReader } from './capture-file-reader.ts'

const folder = fileURLToPath(new URL('../../examples/captures/', import.meta.url))

async function read(name: string): Promise<CaptureRecorder> {
  const capture = new CaptureRecorder()
  const ending = await (await openCaptureReader(folder + name)).readInto(capture)
  assert.equal(ending.state, 'complete', `${name}: ${ending.reason}`)
  return capture
}

/** What each packet carries from layer 3 on, behind its VLAN tag if it has one. */
function layer3(capture: CaptureRecorder): { etherTypes: number[], packets: string[] } {
  const etherTypes: number[] = []
  const packets = capture.packets.map(({ bytes, interfaceIndex }) => {
    const payload = linkPayload(bytes, 0, bytes.length, capture.interfaces[interfaceIndex]?.linkType as number)
    assert.notEqual(payload, LINK_PAYLOAD_UNKNOWN)
    const tagLength = payloadEtherType(payload) === 0x8100 ? 4 : 0
    etherTypes.push(payloadEtherType(payload))
    return Buffer.from(bytes.subarray(payloadHeaderLength(payload) + tagLength)).toString('hex')
  })
  return { etherTypes, packets }
}

const layer3Of = async (name: string): Promise<string[]> => layer3(await read(name)).packets

test('the README lists every capture with its packets and its link type', async () => {
  const rows = [...readFileSync(`${folder}README.md`, 'utf8').matchAll(/^\| `(\S+)` \| (\d+) \| ([^|]+) \|/gm)]
  const listed = rows.map(row => row[1] as string)
  assert.deepEqual(listed.toSorted(), readdirSync(folder).filter(name => /\.pcap/.test(name)).sort())
  for (const [, name, count, linkType] of rows) {
    const capture = await read(name as string)
    assert.equal(capture.packets.length, Number(count), name)
    const names = new Set(capture.interfaces.map(i => linkTypeName(i.linkType)))
    if (names.size > 1) assert.equal(linkType, ['', 'one', 'two', 'three'][names.size], name)
    else if (name !== 'web.pcap.gz') assert.deepEqual([...names], [linkType], name)
    for (const etherType of layer3(capture).etherTypes) assert.ok([0x0800, 0x0806, 0x86dd, 0x8100].includes(etherType))
  }
})

test('a conversion changes nothing from layer 3 on', async () => {
  const ethernet = await layer3Of('ethernet.pcap')
  for (const name of ['nanoseconds.pcap', 'big-endian.pcap', 'modified.pcap', 'vlan.pcap']) {
    assert.deepEqual(await layer3Of(name), ethernet, name)
  }
  const raw = await layer3Of('raw.pcap')
  for (const name of ['null.pcap', 'loop.pcap', 'ppp.pcap', 'ppp-hdlc.pcap']) {
    assert.deepEqual(await layer3Of(name), raw, name)
  }
  assert.deepEqual([...await layer3Of('ipv4.pcap'), ...await layer3Of('ipv6.pcap')], raw)
})

test('a conversion keeps the times as far as its format can', async () => {
  const nanoseconds = await read('nanoseconds.pcap')
  assert.ok(nanoseconds.packets.some(p => p.nanoseconds % 1000 !== 0))
  for (const name of ['ethernet.pcap', 'big-endian.pcap', 'modified.pcap']) {
    const times = (await read(name)).packets.map(p => [p.seconds, p.nanoseconds])
    assert.deepEqual(times, nanoseconds.packets.map(p => [p.seconds, p.nanoseconds - p.nanoseconds % 1000]), name)
  }
})

test('the interfaces of a merged capture keep their link types', async () => {
  const merged = await read('several-interfaces.pcapng')
  assert.deepEqual(merged.interfaces.map(i => i.linkType), [LinkType.Ethernet, LinkType.Ipv4, LinkType.LinuxSll2])
  const sections = await read('two-sections.pcapng')
  assert.deepEqual(sections.interfaces.map(i => i.linkType), [LinkType.Ethernet, LinkType.Ipv6])
  assert.deepEqual(sections.packets.map(p => p.interfaceIndex), [...Array(12).fill(0), ...Array(12).fill(1)])
  for (const capture of [merged, sections]) {
    for (const etherType of layer3(capture).etherTypes) assert.ok(etherType === 0x0800 || etherType === 0x86dd)
  }
})
