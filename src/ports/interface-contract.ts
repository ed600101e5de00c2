/**
 * Interface contract: what ports at a network interface keep beyond the contract of all ports (port-contract.ts). A suite of named checks;
 * each makes a veth in a namespace of its own, with a port at either end.
 */

import assert from 'node:assert/strict'
import { CodedError } from '../base/coded-error.ts'
import type { InterfacePortOptions, LinkPort } from './link-port.ts'
import { waitForPorts, waitForPortsBlocking } from './port-waiter.ts'
import { until, type TestNetwork } from './test-network.ts'
import { hex, type TestPortEnd } from './test-port-end.ts'

type InterfacePort = LinkPort & { readonly lastEnd: string }

/** What is to be checked. */
export interface InterfaceSubject<P extends InterfacePort = InterfacePort> {
  readonly network: TestNetwork
  readonly createEnd: (name: string, namespace: string, options?: Partial<InterfacePortOptions>) => TestPortEnd<P>
}

export interface Ends<P extends InterfacePort> {
  readonly namespace: string
  readonly left: TestPortEnd<P>
  readonly right: TestPortEnd<P>
  close(): void
}

const ADDRESSES = hex('020000000001 020000000002')
const HEAD = hex('020000000001 020000000002 88b6')

/** Two ports on a veth, up. */
export async function openEnds<P extends InterfacePort>(
  { network, createEnd }: InterfaceSubject<P>, options: Partial<InterfacePortOptions> = {}, mtu = 1500,
): Promise<Ends<P>> {
  const namespace = network.addNamespace()
  network.addVeth(namespace, 'left', namespace, 'right', mtu)
  const [left, right] = [createEnd('left', namespace, options), createEnd('right', namespace, options)]
  for (const { port } of [left, right]) port.open()
  await until('both are up', () => { left.turn(); right.turn() }, () => left.port.isUp && right.port.isUp)
  return { namespace, left, right, close: () => { for (const { port } of [left, right]) port.close() } }
}

/** What comes in at one end, until there are so many frames. */
export async function receiveFrames(from: TestPortEnd<LinkPort>, to: TestPortEnd<LinkPort>, count: number): Promise<Uint8Array[]> {
  const frames: Uint8Array[] = []
  await until(`${count} frames arrive`, () => { from.turn(); frames.push(...to.receive()) }, () => frames.length >= count, 3000)
  return frames
}

/** Checks that a port cannot be opened, and that this is said in one line with a code. */
export function assertFailsToOpen({ port }: TestPortEnd<LinkPort>, code: string, text: RegExp): void {
  assert.throws(() => { port.open() }, (error) => {
    assert.ok(error instanceof CodedError)
    assert.equal(error.code, code)
    assert.match(error.toLine(), text)
    assert.doesNotMatch(error.toLine(), /\n/)
    return true
  })
}

export const interfaceContract: Record<string, (subject: InterfaceSubject) => Promise<void> | void> = {
  'VLAN tags stay, and the first takes no room from the frame': async (subject) => {
    const { left, right, close } = await openEnds(subject)
    for (const tags of ['8100 a123', '88a8 0005', '88a8 0005 8100 6007']) {
      // The first tag comes on top of the MTU.
      const longest = 1500 + 4 - hex(tags).length
      for (const payload of [50, longest]) {
        const length = left.put(ADDRESSES, hex(tags), hex('88b6'), new Uint8Array(payload).fill(7))
        assert.ok(left.port.send(left.frame, length), `${tags}, ${payload} bytes`)
        assert.deepEqual(await receiveFrames(left, right, 1), [left.arena.u8.slice(left.frame, left.frame + length)])
      }
      assert.equal(left.port.send(left.frame, left.put(ADDRESSES, hex(tags), hex('88b6'), new Uint8Array(longest + 1))), false)
    }
    assert.equal(left.port.statistics.txOversize, 3)
    close()
  },

  'nobody outside can speak as NFactor, but nodes among themselves': async (subject) => {
    for (const leads of ['outside', 'inside'] as const) {
      const { left, right, close } = await openEnds(subject, { leads })
      for (const type of ['88b5', '88b6', '88b5', '88b7']) {
        assert.ok(left.port.send(left.frame, left.put(ADDRESSES, hex(type), new Uint8Array(60))))
      }
      const frames = await receiveFrames(left, right, leads === 'outside' ? 2 : 4)
      for (let i = 0; i < 3; i++) frames.push(...right.receive())
      assert.deepEqual(frames.map((frame) => frame[13]), leads === 'outside' ? [0xb6, 0xb7] : [0xb5, 0xb6, 0xb5, 0xb7])
      assert.equal(right.port.statistics.rxForeign, leads === 'outside' ? 2 : 0)
      close()
    }
  },

  'an interface goes down, goes away and comes back': async (subject) => {
    const { network } = subject
    const { namespace, left, right, close } = await openEnds(subject)
    const turn = (): void => { left.turn(); right.turn() }
    const length = left.put(HEAD, new Uint8Array(60).fill(9))
    const pass = async (): Promise<void> => {
      const frames: Uint8Array[] = []
      await until('a frame passes', () => { left.port.send(left.frame, length); turn(); frames.push(...right.receive()) },
        () => frames.length > 0)
    }
    await pass()
    network.run(namespace, 'ip', 'link', 'set', 'right', 'down')
    await until('both are down', turn, () => !left.port.isUp && !right.port.isUp)
    assert.deepEqual([left.port.send(left.frame, length), left.port.room], [false, 0])
    network.run(namespace, 'ip', 'link', 'set', 'right', 'up')
    await until('both are up', turn, () => left.port.isUp && right.port.isUp)
    await pass()
    network.run(namespace, 'ip', 'link', 'del', 'left')
    await until('both are down', turn, () => !left.port.isUp && !right.port.isUp)
    assert.match(left.port.lastEnd, /interface left/)
    // As another one: with more queues, and longer frames.
    network.addVeth(namespace, 'left', namespace, 'right', 3000, 2)
    await until('both are up', turn, () => left.port.isUp && right.port.isUp)
    await pass()
    assert.ok(left.port.send(left.frame, left.put(HEAD, new Uint8Array(2900))))
    await until('a long frame passes', turn, () => right.receive().some((frame) => frame.length === 2914))
    assert.equal(left.port.statistics.connections, 3)
    while (right.receive().length > 0);
    assert.equal(right.pool.used, 0)
    close()
  },

  'a frame wakes who sleeps, and so does the end of the interface, once': async (subject) => {
    const { namespace, left, right, close } = await openEnds(subject)
    const length = left.put(HEAD, new Uint8Array(60).fill(9))
    while (right.receive().length > 0);
    assert.equal(await waitForPorts([right.port], 50), false)
    setTimeout(() => { left.port.send(left.frame, length); left.port.flush() }, 20)
    assert.equal(await waitForPorts([left.port, right.port], 5000), true)
    assert.equal(waitForPortsBlocking([left.port, right.port], 5000), true)
    assert.equal(right.receive().length, 1)
    subject.network.run(namespace, 'ip', 'link', 'set', 'right', 'down')
    assert.equal(await waitForPorts([right.port], 5000), true)
    right.turn()
    assert.equal(right.port.isUp, false)
    assert.equal(await waitForPorts([right.port], 50), false)
    close()
  },

  'what is missing is said in one line': ({ network, createEnd }) => {
    const namespace = network.addNamespace()
    assertFailsToOpen(createEnd('none', namespace), 'NF_PORT_INTERFACE', /interface none: ENODEV.*`ip link`/)
    assertFailsToOpen(createEnd('lo', namespace), 'NF_PORT_INTERFACE', /interface lo is not an Ethernet interface/)
    assertFailsToOpen(createEnd('eth0', 'none'), 'NF_PORT_INTERFACE', /namespace none cannot be opened/)
    assertFailsToOpen(createEnd('a-name-that-is-far-too-long', namespace), 'NF_PORT_INTERFACE', /ENODEV/)
  },
}
