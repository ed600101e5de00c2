/**
 * Faults of the control simulation: at random moments, of random kinds, one seed. Then all is healed, and the cluster must settle.
 */

import { ControlSimulation, quickLimits } from './control-simulation.ts'
import { noStoreFaults } from './faulty-store.ts'
import { ModelRuntime, ModelSwitch } from './model-nodes.ts'

export interface ControlOutcome {
  readonly seed: number
  readonly violations: readonly string[]
  /** From the end of all faults until all is as it should be, µs; -1: never. */
  readonly settledUs: number
  readonly unsettled: readonly string[]
  readonly counts: ControlSimulation['counts']
  readonly events: readonly string[]
}

const FAULTS_US = 60e6
/** Runtimes that an update replaces become empty one after the other, each within a minute. */
const SETTLING_US = 300e6
const SHORT_US = 60e6

/** @param isShort it ends with the first violation, and when all is settled does not wait to see that it stays so */
export function runControlFaults(seed: number, isShort = false): ControlOutcome {
  const world = new ControlSimulation(seed, quickLimits, 3, 1 + seed % 3)
  const { random } = world
  world.run(5e6)
  for (const end = world.now + FAULTS_US; world.now < end;) {
    if (isShort && world.violations.length > 0) break
    strike(world)
    world.run(random.below(1.5e6))
  }
  world.heal()
  const healed = world.now
  world.demand = 0.5 + random.below(300) / 100
  let settledAt = -1
  while (world.now < healed + (isShort ? SHORT_US : SETTLING_US)) {
    world.run(500_000)
    if (isShort && world.violations.length > 0) break
    if (world.unsettled().length > 0) settledAt = -1
    else if (settledAt < 0) settledAt = world.now
    // And stays so for as long as the autoscaler may take to think again.
    else if (world.now - settledAt > (isShort ? 0 : 40e6)) break
  }
  return { seed, violations: world.violations, settledUs: settledAt < 0 ? -1 : settledAt - healed, unsettled: world.unsettled(),
    counts: world.counts, events: world.events }
}

function strike(world: ControlSimulation): void {
  const { random, hosts, now } = world
  const host = random.pick(hosts)
  const leading = hosts.find(({ controller }) => controller !== null && controller.term !== 0) ?? host
  const runtimes = world.runtimes()
  const nodes = [...world.nodes.values()]
  const later = (us: number): number => now + random.below(us)
  switch (random.below(15)) {
    case 0:
      world.kill(host)
      break
    case 1:
    case 2:
      // Within one of its next actions, most often the leader: between transaction, commands and processes.
      leading.actionsLeft = 1 + random.below(20)
      break
    case 3:
      leading.pausedUntil = later(6e6)
      break
    case 4: {
      const isBad = random.chance(0.5)
      host.store.faults = isBad
        ? { delayUsMax: 400_000, late: 0.05, requestLost: 0.1, answerLost: 0.1, refused: 0.1, watchEnds: 0.05, isDown: false }
        : { ...noStoreFaults, delayUsMax: 20_000, isDown: random.chance(0.3) }
      break
    }
    case 5:
      if (runtimes.length > 0) world.end(random.pick(runtimes), random.chance(0.5))
      break
    case 6:
      random.pick(nodes).pausedUntil = later(random.chance(0.5) ? 300_000 : 4e6)
      break
    case 7: {
      const one = random.pick(nodes)
      if (one instanceof ModelSwitch) one.restart()
      break
    }
    case 8: {
      // A node that nobody hears, or some do not.
      const one = random.pick(nodes)
      for (const other of [...hosts.map(({ name }) => name), ...nodes.map(({ id }) => id)]) {
        if (random.chance(0.5)) world.cut.add(`${other}|${one.id}`)
      }
      break
    }
    case 9:
      for (const { id } of nodes) if (random.chance(0.6)) world.cut.add(`${host.name}|${id}`)
      break
    case 10:
      world.cut.clear()
      break
    case 11:
      world.loss = random.pick([0, 0, 0.05, 0.3])
      break
    case 12:
      world.demand = 0.3 + random.below(400) / 100
      break
    case 13:
      // It takes itself for the leader long after it has been deposed.
      leading.clockSlowUntil = later(15e6)
      leading.store.faults = { ...leading.store.faults, isDown: true }
      break
    case 14: {
      const controller = world.leader()
      if (controller === undefined) break
      const to = 1 + random.below(3)
      controller.operate(random.pick([
        { kind: 'roll-out', to, isReversible: random.chance(0.7), onFailure: random.chance(0.5) ? 'pause' : 'roll-back' },
        { kind: 'resume' }, { kind: 'roll-back' }, { kind: 'scale', desired: 1 + random.below(4) },
        ...runtimes.flatMap(({ incarnation }) => [
          { kind: 'drain', incarnation, isEnded: random.chance(0.5) }, { kind: 'undrain', incarnation }] as const)] as const))
      for (const one of runtimes) if (one instanceof ModelRuntime) one.nfErrors = one.chain === 3 && random.chance(0.5) ? 50 : 0
      break
    }
  }
}
