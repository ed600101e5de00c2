import { test } from 'node:test'
import assert from 'node:assert/strict'
import { AssertionError } from '../base/assert.ts'
import type { Arena } from '../memory/arena.ts'
import { PrepareFlowReply } from '../messages/migration.ts'
import type { RuntimeNode } from '../node/runtime-node.ts'
import { permittedDrops } from './fault-kinds.ts'
import { Ledger, type Checker, type ProcessedPacket } from './ledger.ts'
import { emptyCells, newSummary, protocolPhases } from './simulation-report.ts'
import { simulate, Simulation, type SimNode } from './simulation.ts'
import { writeTrailer } from './trailer.ts'

/** Parts of a node that only a lie changes. */
interface Lying {
  readonly packets: { received: number }
  poll: () => boolean
}

/** A trivial protocol: packets pass two nodes. What it tells the ledger is the truth, unless a test lets it lie. */
class ToyProtocol {
  readonly ledger: Ledger
  #id = 0
  #count = 0
  #state = 0
  readonly #sequences = [0, 0]

  constructor(isOrdered = true, commits = false) {
    this.ledger = new Ledger(100, isOrdered, commits)
  }

  packet(side: 0 | 1, flow = 5): Uint8Array {
    const frame = new Uint8Array(64)
    writeTrailer(frame, { id: ++this.#id, flow, side, sequence: ++this.#sequences[side] })
    this.ledger.send(this.#id)
    return frame
  }

  process(lie: Partial<ProcessedPacket> = {}, flow = 5, sequence = this.#count + 1): void {
    if (this.#state === 0) this.begin()
    this.ledger.processed(flow, 0, sequence, { id: this.#id, runtime: 11, incarnation: 3, flowId: 9, epoch: 1, state: this.#state,
      count: ++this.#count, before: this.#count - 1, ...lie })
  }

  /** Its state begins, under this id. */
  begin(flowId = 9): number {
    this.#count = 0
    return this.#state = this.ledger.began(flowId)
  }

  get id(): number {
    return this.#id
  }
}

function saw(toy: ToyProtocol): Checker[] {
  return toy.ledger.violations.map(({ checker }) => checker)
}

test('a toy protocol that does not lie is not accused', () => {
  const toy = new ToyProtocol()
  for (let i = 0; i < 10; i++) {
    const frame = toy.packet((i & 1) as 0 | 1)
    toy.process()
    toy.ledger.leave(frame)
  }
  toy.process({ epoch: 2, incarnation: 4 })
  assert.deepEqual(saw(toy), [])
  assert.deepEqual([...toy.ledger.unaccounted()], [])
})

test('exactly-once: a packet leaves twice, or although it was lost', () => {
  const toy = new ToyProtocol()
  const frame = toy.packet(0)
  toy.ledger.leave(frame)
  toy.ledger.leave(frame)
  const lost = toy.packet(1)
  toy.ledger.lose(lost)
  toy.ledger.leave(lost)
  assert.deepEqual(saw(toy), ['exactly-once', 'order', 'exactly-once'])
})

test('exactly-once: a packet leaves where it came from', () => {
  const toy = new ToyProtocol()
  toy.ledger.leave(toy.packet(0), 1)
  toy.ledger.leave(toy.packet(1), 0)
  assert.deepEqual(saw(toy), [])
  toy.ledger.leave(toy.packet(1), 1)
  assert.deepEqual(saw(toy), ['exactly-once'])
})

test('exactly-once: copies that a link made may leave, no others', () => {
  const toy = new ToyProtocol(false)
  const frame = toy.packet(0)
  toy.ledger.duplicate(frame)
  toy.ledger.leave(frame)
  toy.ledger.leave(frame)
  assert.deepEqual(saw(toy), [])
  toy.ledger.leave(frame)
  assert.deepEqual(saw(toy), ['exactly-once'])
})

test('addresses: a packet leaves with those of a link, or of another flow', () => {
  const toy = new ToyProtocol()
  toy.ledger.leave(toy.packet(0))
  const [ofLink, ofOther] = [toy.packet(0), toy.packet(0)]
  ofLink.set([0x02, 0x4e, 0, 1, 12, 1], 0)
  toy.ledger.leave(ofLink)
  ofOther[4] ^= 1
  toy.ledger.leave(ofOther)
  assert.deepEqual(saw(toy), ['addresses', 'addresses'])
})

test('order: a packet overtakes another of its flow and side', () => {
  const toy = new ToyProtocol()
  const [first, second, answer] = [toy.packet(0), toy.packet(0), toy.packet(1)]
  for (const frame of [second, answer, first]) toy.ledger.leave(frame)
  assert.deepEqual(saw(toy), ['order'])
})

test('loss: a packet that has not left is not accounted for', () => {
  const toy = new ToyProtocol()
  toy.packet(0)
  toy.ledger.leave(toy.packet(0))
  assert.deepEqual([...toy.ledger.unaccounted()], [1])
})

test('one-owner: two owners in an epoch, an epoch that goes back, a flow that was replaced', () => {
  const lies: Partial<ProcessedPacket>[] = [{ incarnation: 4 }, { epoch: 0 }, { flowId: 8 }]
  for (const lie of lies) {
    const toy = new ToyProtocol()
    toy.process()
    toy.process(lie)
    assert.equal(saw(toy)[0], 'one-owner', JSON.stringify(lie))
  }
})

test('state: it has regressed, or forked, or sees packets out of order, or never began', () => {
  const lies: Partial<ProcessedPacket>[] = [{ count: 1 }, { count: 3 }, { before: 9 }, { state: 0 }]
  for (const lie of lies) {
    const toy = new ToyProtocol()
    toy.process()
    toy.process(lie)
    assert.deepEqual(saw(toy), ['state'], JSON.stringify(lie))
  }
  const toy = new ToyProtocol()
  toy.process()
  toy.ledger.crashes++
  toy.process({ count: 1 })
  assert.deepEqual(saw(toy), [], 'a crash excuses an older state')
})

test('commit: a state that goes on after a crash has seen what never leaves', () => {
  for (const isHeld of [false, true]) {
    const toy = new ToyProtocol(true, true)
    toy.packet(0)
    toy.process()
    if (isHeld) toy.ledger.hold(toy.id)
    toy.ledger.crashes++
    const frame = toy.packet(0)
    toy.process({ incarnation: 4, epoch: 2 })
    toy.ledger.leave(frame)
    assert.equal([...toy.ledger.broken()].length, isHeld ? 0 : 1)
  }
})

test('commit: what has not left when an owner dies whose replica was dead may be lost, also if no packet comes behind it', () => {
  for (const isExposed of [false, true]) {
    const toy = new ToyProtocol(true, true)
    toy.packet(0)
    toy.process()
    toy.ledger.crashes++
    const frame = toy.packet(0)
    toy.process()
    toy.ledger.leave(frame)
    toy.ledger.crashes++
    if (isExposed) toy.ledger.exposed(9)
    toy.ledger.ended(9)
    assert.equal([...toy.ledger.broken()].length, isExposed ? 0 : 1)
  }
})

test('commit: a state is lost where none may be, under its id or another; not when the flow had ended', () => {
  for (const [flowId, isEnded] of [[9, false], [9, true], [10, false], [10, true]] as const) {
    const toy = new ToyProtocol(true, true)
    toy.ledger.survives = true
    toy.begin()
    const frame = toy.packet(0)
    toy.process()
    toy.ledger.leave(frame)
    toy.ledger.crashes++
    if (isEnded) toy.ledger.ended(9)
    toy.begin(flowId)
    toy.packet(0)
    toy.process({ flowId, count: 1, before: 0, incarnation: 4, epoch: 2 })
    assert.deepEqual(saw(toy), isEnded ? [] : ['commit'], `${flowId}, ${isEnded}`)
  }
})

test('commit: a connection that began on the ports of another is lost with its owner; not when a packet of it has left', () => {
  for (const leaves of ['none', 'before', 'behind'] as const) {
    const toy = new ToyProtocol(true, true)
    const older = toy.begin()
    toy.ledger.leave(toy.packet(0))
    toy.process()
    toy.ledger.ended(9)
    toy.begin()
    const frame = toy.packet(0)
    toy.process()
    if (leaves === 'before') toy.ledger.leave(frame)
    toy.ledger.crashes++
    toy.packet(0)
    toy.process({ state: older, count: 2, before: 1, incarnation: 4, epoch: 2 }, 5, 2)
    if (leaves === 'behind') toy.ledger.leave(frame)
    assert.deepEqual(saw(toy), leaves === 'none' ? [] : ['commit'], leaves)
    assert.deepEqual([...toy.ledger.broken()], [])
  }
})

test('verdict: a packet leaves that a network function has dropped', () => {
  const toy = new ToyProtocol()
  const frame = toy.packet(0)
  toy.ledger.refuse(toy.id)
  toy.ledger.leave(frame)
  assert.deepEqual(saw(toy), ['verdict'])
})

test('alias: granted twice, not found, or leading to another flow', () => {
  const toy = new ToyProtocol()
  toy.ledger.claim(62_000, 4)
  toy.ledger.claim(62_000, 8)
  assert.deepEqual(saw(toy), ['alias'])
  toy.ledger.stray(8, toy.id, 62_000)
  assert.deepEqual(saw(toy), ['alias', 'alias'])
  toy.ledger.unclaim(62_000)
  toy.ledger.stray(8, toy.id, 62_000)
  toy.process()
  toy.process({}, 6)
  assert.deepEqual(saw(toy), ['alias', 'alias', 'alias'])
})

test('drops: a fault permits some reasons, no fault permits none', () => {
  assert.equal(permittedDrops([]).size, 0)
  assert.ok(permittedDrops(['crash']).has('former-life'))
  assert.ok(!permittedDrops(['loss']).has('former-life'))
})

test('the table of phases and faults shows what was not tried', () => {
  const summary = newSummary()
  assert.equal(emptyCells(summary, ['crash']).length, protocolPhases.length)
  summary.phases.handing = { crash: 1 }
  assert.ok(!emptyCells(summary, ['crash']).includes('handing x crash'))
})

test('the same seed does the same, twice; another does something else', () => {
  const run = (seed: number): string => simulate({ seed, flows: 20, faults: ['loss', 'crash', 'restart', 'skew'] }).hash
  assert.equal(run(7), run(7))
  assert.notEqual(run(7), run(8))
})

test('the life of a flow can be read', () => {
  const { story } = simulate({ seed: 3, flows: 10, follow: 2 })
  assert.match(story[0] ?? '', /outside ──▶ switch \d +packet +number 1/)
  assert.ok(story.some((line) => line.includes('══▶') && line.includes('FlowOpen')))
})

/** What the checkers say of a cluster in which `lie` happens in the middle of the run. */
function sawLie(lie: (simulation: Simulation) => void): string[] {
  const simulation = new Simulation({ seed: 5, flows: 5, faults: [] })
  simulation.queue.at(50_000, () => { lie(simulation) })
  return [...new Set(simulation.run().violations.map(({ checker }) => checker))]
}

test('a cluster that does not lie is not accused', () => {
  assert.deepEqual(sawLie(() => undefined), [])
})

test('conservation: a node forgets a packet', () => {
  assert.ok(sawLie((simulation) => {
    const { node } = simulation.nodes[3] as SimNode
    const { packets } = node as unknown as Lying
    Object.defineProperty(node, 'packets', { value: { ...packets, received: packets.received + 1 } })
  }).includes('conservation'))
})

test('loss: a packet that came is nowhere, or has been made of nothing', () => {
  assert.deepEqual(sawLie(({ ledger, workload }) => { ledger.send(workload.packetsMax) }), ['loss'])
})

/** A node takes over a packet more than others have handed over, and drops it. */
function doubleOne({ nodes }: Simulation): void {
  const { node } = nodes[3] as SimNode
  const of = Object.getOwnPropertyDescriptor(node, 'packets')?.get as () => RuntimeNode['packets']
  Object.defineProperty(node, 'packets', {
    get: () => {
      const packets = of.call(node)
      return { ...packets, takenOver: packets.takenOver + 1, dropped: packets.dropped + 1 }
    },
  })
}

test('loss: a packet in a message counts twice; but where a link brings late what is released again', () => {
  assert.deepEqual(sawLie(doubleOne), ['loss'])
  const sawReleased = (chance: number, from: number): string[] => sawLie((simulation) => {
    const { network, ledger, workload } = simulation
    const frame = new Uint8Array(64)
    writeTrailer(frame, { id: workload.packetsMax, flow: 1, side: 0, sequence: 1 })
    network.faults['link-reordering'] = chance
    for (let i = 0; i < 2; i++) {
      ledger.send(workload.packetsMax)
      // Nobody is at the end of such a link.
      network.link(from, from - 1).send(frame)
    }
    network.faults['link-reordering'] = 0
    doubleOne(simulation)
  })
  assert.deepEqual(sawReleased(1, 12), [])
  assert.deepEqual(sawReleased(0, 12), ['loss'])
  assert.deepEqual(sawReleased(1, 2), ['loss'])
})

test('invariant: a node\'s assertion fails', () => {
  assert.ok(sawLie((simulation) => {
    const one = simulation.nodes[2] as SimNode
    ;(one.node as unknown as Lying).poll = () => { throw new AssertionError('a lie') }
    simulation.wake(one)
  }).includes('invariant'))
})

test('convergence: a step stays open', () => {
  assert.ok(sawLie(({ nodes }) => {
    Object.defineProperty(nodes[0].node, 'openSteps', { value: { handing: 1 } })
  }).includes('convergence'))
})

test('pools: a packet slot is still in use at the end', () => {
  assert.deepEqual(sawLie(({ nodes }) => {
    Object.defineProperty(nodes[1].node, 'slotsUsed', { value: 1 })
  }), ['pools'])
})

test('anomaly: a placement policy chooses nobody', () => {
  assert.ok(sawLie(({ nodes }) => {
    Object.defineProperty(nodes[0].node, 'anomalies', { value: { 'placement-policy': 1 } })
  }).includes('anomaly'))
})

test('commit: a flow that its replica has survived begins anew', () => {
  const begin = (lie: (toy: ToyProtocol) => void): Checker[] => {
    const toy = new ToyProtocol(true, true)
    const frame = toy.packet(0)
    toy.process()
    toy.ledger.leave(frame)
    toy.ledger.crashes++
    toy.ledger.orphaned(9)
    lie(toy)
    toy.begin(10)
    toy.process({ flowId: 10, epoch: 1, count: 1, before: 0 })
    return saw(toy)
  }
  assert.deepEqual(begin(() => undefined), ['commit'])
  assert.deepEqual(begin(({ ledger }) => { ledger.ended(9) }), [], 'it had ended')
  assert.deepEqual(begin(({ ledger }) => { ledger.crashes++ }), [], 'the replica may have died, too')
})

test('async: a flow has lost more of its state with its owner than it may', () => {
  const toy = new ToyProtocol()
  for (let i = 0; i < 6; i++) toy.process()
  toy.ledger.crashes++
  toy.ledger.orphaned(9, 2)
  toy.process({ epoch: 9, count: 5 })
  assert.deepEqual(saw(toy), [], 'two packets are permitted')
  toy.ledger.crashes++
  toy.ledger.orphaned(9, 2)
  toy.process({ epoch: 18, count: 3 })
  assert.deepEqual(saw(toy), ['async'])
  assert.deepEqual(toy.ledger.stateLost, { flows: 2, packets: 5, most: 3 })
})

/** What the checkers say of a cluster with replicas that lies from the start. */
function sawReplicas(lie: (simulation: Simulation) => void): string[] {
  const simulation = new Simulation({ seed: 5, flows: 50, faults: [], replication: 'commit' })
  simulation.queue.at(15_000, () => { lie(simulation) })
  return [...new Set(simulation.run().violations.map(({ checker }) => checker))]
}

test('replica: a flow has none; flows that have one do not move', () => {
  assert.deepEqual(sawReplicas(() => undefined), [])
  assert.deepEqual(sawReplicas(({ nodes }) => {
    for (const { node } of nodes) if (node?.kind === 'runtime') Object.defineProperty(node, 'keepsReplica', { value: () => false })
  }), ['replica'])
  assert.deepEqual(sawReplicas(({ watch }) => { Object.defineProperty(watch, 'message', { value: () => undefined }) }), ['replica'])
})

test('answer: a target does not say whether it takes a flow', () => {
  assert.deepEqual(sawReplicas(({ watch }) => {
    const { message } = watch
    Object.defineProperty(watch, 'message', { value: (one: SimNode, peer: number, arena: Arena, at: number) => {
      if (arena.u8[at] !== PrepareFlowReply.type || one.id !== 11) message.call(watch, one, peer, arena, at)
    } })
  }), ['answer'])
})

test('poison: a flow kills a second runtime', () => {
  const { ledger } = new ToyProtocol()
  ledger.poisoned(5, 11)
  ledger.poisoned(6, 12)
  assert.deepEqual(ledger.violations, [])
  ledger.poisoned(5, 12)
  assert.deepEqual(ledger.violations.map(({ checker }) => checker), ['poison'])
})

test('state: a packet comes to a runtime that called itself empty and was removed', () => {
  assert.ok(sawLie((simulation) => {
    const one = simulation.nodes[4] as SimNode
    const frame = new Uint8Array(64)
    writeTrailer(frame, { id: 1, flow: 1, side: 0, sequence: 1 })
    one.isRetired = true
    simulation.lose(one, frame)
  }).includes('state'))
})
