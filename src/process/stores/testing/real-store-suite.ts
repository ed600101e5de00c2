/**
 * What real stores keep beyond the contract: several processes at once, processes that are killed in the middle, and a lead that is passed on in
 * real time.
 */

import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { defaultLeadershipLimits } from '../../../controller/leadership.ts'
import { Draft } from '../../../controller/state-mirror.ts'
import type { Store, StoreAnswer } from '../../../controller/store.ts'
import type { StoreCase } from '../../../controller/store-contract.ts'
import { childEnvironment } from '../../node-launcher.ts'
import { Candidate, realNow } from './candidate.ts'
import { openStore, type StoreSpec } from './store-spec.ts'
import { StoreWhileOpening } from './store-while-opening.ts'

/** For how long another may be waited for when a leader is gone, ms. */
const HANDOVER_MS = defaultLeadershipLimits.leaseUs / 1000 + 1000
const PATIENCE_MS = 20_000

/** A child that prints a number per line. */
class Child {
  readonly process: ChildProcess
  readonly lines: number[] = []
  #rest = ''
  #errors = ''

  constructor(program: string, spec: StoreSpec) {
    this.process = spawn(process.execPath, [fileURLToPath(new URL(program, import.meta.url)), JSON.stringify(spec)], {
      stdio: ['ignore', 'pipe', 'pipe'], env: childEnvironment(),
    })
    this.process.stdout?.on('data', (data: Buffer) => {
      const lines = `${this.#rest}${data}`.split('\n')
      this.#rest = lines.pop() as string
      this.lines.push(...lines.map(Number))
    })
    this.process.stderr?.on('data', (data: Buffer) => { this.#errors += `${data}` })
  }

  assertAlive(): void {
    assert.equal(this.process.exitCode, null, this.#errors)
  }

  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return
    const closed = new Promise((resolve) => this.process.once('close', resolve))
    this.process.kill('SIGKILL')
    await closed
  }
}

/** A case of the contract, over as many connections as it asks for. */
export async function holds({ run }: StoreCase, spec: StoreSpec): Promise<void> {
  const stores: StoreWhileOpening[] = []
  const connect = (): StoreWhileOpening => {
    const store = new StoreWhileOpening(openStore(spec))
    stores.push(store)
    return store
  }
  try {
    await run({ connect, now: realNow, pass: (us) => sleep(us / 1000) })
  } finally {
    await Promise.all(stores.map((store) => store.close()))
  }
}

async function until(isSo: () => boolean, what: string, patienceMs = PATIENCE_MS): Promise<number> {
  const start = performance.now()
  while (!isSo()) {
    assert.ok(performance.now() - start < patienceMs, what)
    await sleep(5)
  }
  return performance.now() - start
}

async function readAll(store: Store): Promise<Extract<StoreAnswer, { kind: 'entries' }>> {
  store.submit({ kind: 'read', id: 1_000_000, prefix: '' }, realNow())
  let found: StoreAnswer | undefined
  await until(() => {
    const answer = store.poll(realNow())
    if (answer?.kind === 'entries') found = answer
    return found !== undefined
  }, 'the store is read')
  return found as Extract<StoreAnswer, { kind: 'entries' }>
}

/** Processes count, and are killed in the middle of it. What was confirmed has counted, and at most one more for each that was killed. */
export async function countsThroughKills(spec: StoreSpec): Promise<void> {
  const children: Child[] = []
  const store = await openStore(spec)
  try {
    for (let round = 0; round < 3; round++) {
      const ours = [new Child('./counter.ts', spec), new Child('./counter.ts', spec)]
      children.push(...ours)
      await until(() => {
        for (const child of ours) child.assertAlive()
        return ours.every(({ lines }) => lines.length >= 10)
      }, 'both count')
      // While the other goes on.
      for (const child of ours) await child.kill()
    }
    const confirmed = children.flatMap(({ lines }) => lines)
    assert.equal(new Set(confirmed).size, confirmed.length, 'no count is given twice')
    const { entries, revision } = await readAll(store)
    const count = Number(entries[0]?.value)
    assert.ok(count >= confirmed.length && count <= confirmed.length + children.length, `${count} for ${confirmed.length} confirmed`)
    assert.ok(revision >= count)
  } finally {
    for (const child of children) await child.kill()
    await store.close()
  }
}

/** Of three processes one leads; it is killed; another leads in time, and so on. How long nobody led, in ms. */
export async function leadPassesOnWhenKilled(spec: StoreSpec): Promise<number[]> {
  const children = Array.from({ length: 3 }, () => new Child('./candidate.ts', spec))
  const leaders = (): Child[] => children.filter(({ process: { signalCode }, lines }) => signalCode === null && (lines.at(-1) ?? 0) > 0)
  try {
    await until(() => {
      for (const child of children) child.assertAlive()
      return leaders().length > 0 && children.every(({ lines }) => lines.length > 0)
    }, 'one leads')
    const gaps: number[] = []
    for (let term = 1; term <= 2; term++) {
      const [leader] = leaders() as [Child]
      assert.equal(leader.lines.at(-1), term)
      await leader.kill()
      gaps.push(await until(() => leaders().length > 0, `after term ${term} another leads within ${HANDOVER_MS} ms`, HANDOVER_MS))
    }
    const terms = children.flatMap(({ lines }) => lines.filter((term) => term > 0))
    assert.deepEqual(terms.sort(), [1, 2, 3], 'every term has one leader')
    return gaps
  } finally {
    for (const child of children) await child.kill()
  }
}

/** Of three candidates one leads, and stands still; another leads in time; what the first goes on to write is refused. */
export async function deposedLeaderWritesNothing(spec: StoreSpec): Promise<void> {
  const stores = await Promise.all(['a', 'b', 'c'].map(() => openStore(spec)))
  try {
    const candidates = stores.map((store, index) => new Candidate(store, `${index}`))
    let running = candidates
    const leads = (): boolean => {
      for (const one of running) one.poll()
      return running.some(({ term }) => term > 0)
    }
    await until(leads, 'one leads')
    const old = candidates.find(({ term }) => term > 0) as Candidate
    const write = (one: Candidate, nonce: string): number =>
      one.submit(new Draft(one.mirror, 'test').put('life', 1, { nonce, incarnation: 1 }))
    const first = write(old, 'first')
    await until(() => {
      leads()
      return old.answer(first) !== undefined && old.mirror.get('life', '1') !== undefined
    }, 'it writes')
    assert.equal((old.answer(first) as { isDone?: boolean }).isDone, true)

    running = candidates.filter((one) => one !== old)
    await until(leads, `another leads within ${HANDOVER_MS} ms`, HANDOVER_MS)
    const next = running.find(({ term }) => term > 0) as Candidate
    assert.equal(next.term, 2)
    assert.equal(old.term, 0, 'the first has stopped by its own clock')
    // It believes to lead all the same, and writes by what it knows.
    const late = write(old, 'late')
    await until(() => {
      leads()
      old.poll()
      return old.answer(late) !== undefined
    }, 'the store has answered')
    assert.equal((old.answer(late) as { isDone?: boolean }).isDone, false)
    const taken = write(next, 'next')
    await until(() => {
      leads()
      return next.answer(taken) !== undefined && next.mirror.get('life', '1')?.nonce === 'next'
    }, 'the new leader writes')
  } finally {
    await Promise.all(stores.map((store) => store.close()))
  }
}
