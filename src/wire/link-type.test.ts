import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Random } from '../base/random.ts'
import {
  LINK_PAYLOAD_UNKNOWN, LinkType, isSupportedLinkType, linkPayload, linkTypeName, payloadEtherType, payloadHeaderLength,
} from './link-type.ts'


/** The hex digits as a packet in the middle of other bytes, so that a wrong offset or a byte too many shows. */
function at(linkType: number, hex: string): string {
  const packet = Buffer.from(hex.replaceAll(' ', ''), 'hex')
  const bytes = Buffer.concat([Buffer.alloc(7, 0xee), packet, Buffer.alloc(32, 0x21)])
  const payload = linkPayload(bytes, 7, packet.length, linkType)
  if (payload === LINK_PAYLOAD_UNKNOWN) return 'unknown'
  return `${payloadEtherType(payload).toString(16).padStart(4, '0')} behind ${payloadHeaderLength(payload)}`
}

test('raw IP is told apart by its version', () => {
  for (const linkType of [LinkType.RawDlt, LinkType.RawOpenBsd, LinkType.Raw]) {
    assert.equal(at(linkType, '45'), '0800 behind 0')
    assert.equal(at(linkType, '60'), '86dd behind 0')
    assert.equal(at(linkType, '50'), 'unknown')
    assert.equal(at(linkType, ''), 'unknown')
  }
  assert.equal(at(LinkType.Ipv4, '45'), '0800 behind 0')
  assert.equal(at(LinkType.Ipv4, '60'), 'unknown')
  assert.equal(at(LinkType.Ipv6, '60'), '86dd behind 0')
  assert.equal(at(LinkType.Ipv6, '45'), 'unknown')
})

test('loopback takes the address families of all systems in either byte order', () => {
  for (const linkType of [LinkType.Null, LinkType.Loop]) {
    assert.equal(at(linkType, '02000000'), '0800 behind 4')
    assert.equal(at(linkType, '00000002'), '0800 behind 4')
    for (const family of ['0a', '18', '1c', '1e']) {
      assert.equal(at(linkType, `${family}000000`), '86dd behind 4')
      assert.equal(at(linkType, `000000${family}`), '86dd behind 4')
    }
    for (const other of ['01000000', '00000000', '02000002', '02010000', '00000100', '020000']) {
      assert.equal(at(linkType, other), 'unknown', other)
    }
  }
})

test('PPP comes with and without address and control, and with a protocol field of one or two bytes', () => {
  for (const linkType of [LinkType.Ppp, LinkType.PppSerial]) {
    assert.equal(at(linkType, 'ff03 0021'), '0800 behind 4')
    assert.equal(at(linkType, 'ff03 0057'), '86dd behind 4')
    assert.equal(at(linkType, 'ff03 21'), '0800 behind 3')
    assert.equal(at(linkType, '0021'), '0800 behind 2')
    assert.equal(at(linkType, '0057'), '86dd behind 2')
    assert.equal(at(linkType, '21'), '0800 behind 1')
    assert.equal(at(linkType, '57'), '86dd behind 1')
    assert.equal(at(linkType, 'ff03 0281'), '8847 behind 4')
    assert.equal(at(linkType, '0f00 0800'), '0800 behind 4')
    assert.equal(at(linkType, '8f00 86dd'), '86dd behind 4')
    for (const other of ['', 'ff', 'ff03', 'ff03 00', '00', 'ff03 c021', '0f00 08', '0f00 0001']) {
      assert.equal(at(linkType, other), 'unknown', other)
    }
  }
})

test('Linux cooked captures pass on the EtherType, unless the device has none', () => {
  const sll = (deviceType: string, protocol: string): string => `0000 ${deviceType} 0006 025ebc000001 0000 ${protocol}`
  assert.equal(at(LinkType.LinuxSll, sll('0001', '0800')), '0800 behind 16')
  assert.equal(at(LinkType.LinuxSll, sll('0304', '86dd')), '86dd behind 16')
  assert.equal(at(LinkType.LinuxSll, sll('fffe', '0800')), '0800 behind 16')
  assert.equal(at(LinkType.LinuxSll, sll('0001', '8100')), '8100 behind 16')
  assert.equal(at(LinkType.LinuxSll, sll('0001', '0806')), '0806 behind 16')
  for (const [device, protocol] of [['0001', '0004'], ['0338', '0800'], ['0323', '0800']] as const) {
    assert.equal(at(LinkType.LinuxSll, sll(device, protocol)), 'unknown', device)
  }
  assert.equal(at(LinkType.LinuxSll, sll('0001', '08')), 'unknown')

  const sll2 = (deviceType: string, protocol: string): string =>
    `${protocol} 0000 00000003 ${deviceType} 00 06 025ebc000001 0000`
  assert.equal(at(LinkType.LinuxSll2, sll2('0001', '0800')), '0800 behind 20')
  assert.equal(at(LinkType.LinuxSll2, sll2('0001', '86dd')), '86dd behind 20')
  assert.equal(at(LinkType.LinuxSll2, sll2('0338', '0800')), 'unknown')
  assert.equal(at(LinkType.LinuxSll2, sll2('0001', '0800').slice(0, -2)), 'unknown')
})

test('Ethernet passes on the EtherType, and knows no length field', () => {
  const addresses = '025ebc000001 025ebc000002'
  assert.equal(at(LinkType.Ethernet, `${addresses} 0800`), '0800 behind 14')
  assert.equal(at(LinkType.Ethernet, `${addresses} ffff`), 'ffff behind 14')
  assert.equal(at(LinkType.Ethernet, `${addresses} 05ff`), 'unknown')
  assert.equal(at(LinkType.Ethernet, `${addresses} 08`), 'unknown')
})

test('no packet makes it read outside of the packet', () => {
  const random = new Random(1)
  const supported = Object.values(LinkType)
  for (let round = 0; round < 20_000; round++) {
    const length = random.below(24)
    // A typed array of exactly that length: a byte read behind it is undefined, and its EtherType would not be stable.
    const bytes = random.fill(new Uint8Array(length))
    if (random.chance(0.5)) bytes.fill(0, 0, random.below(length + 1))
    const padded = new Uint8Array(length + 64).fill(0xff)
    padded.set(bytes, 32)
    const linkType = random.pick([...supported, 147])
    const payload = linkPayload(bytes, 0, length, linkType)
    assert.equal(linkPayload(padded, 32, length, linkType), payload)
    assert.ok(payloadHeaderLength(payload) <= length)
    assert.equal(payload === LINK_PAYLOAD_UNKNOWN, payloadEtherType(payload) === 0)
  }
})

test('the numbers are those of the registry', () => {
  const numbers = [0, 1, 9, 12, 14, 50, 101, 108, 113, 228, 229, 276]
  assert.deepEqual(Object.values(LinkType).toSorted((a, b) => a - b), numbers)
})

test('names', () => {
  assert.equal(linkTypeName(LinkType.Ethernet), 'Ethernet')
  assert.equal(linkTypeName(105), 'IEEE 802.11 Wi-Fi')
  assert.equal(linkTypeName(60_000), 'link type 60000')
  for (const linkType of Object.values(LinkType)) assert.ok(!linkTypeName(linkType).startsWith('link type'))
  assert.ok(isSupportedLinkType(276))
  assert.ok(!isSupportedLinkType(105))
})
