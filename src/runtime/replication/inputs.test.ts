import { test } from 'node:test'
import assert from 'node:assert/strict'
import type { MessageChannel } from '../../transport/message-channel.ts'
import { coveredBy, Inputs, type InputLink } from './inputs.ts'

/** A link and a session that do what a test says. */
class Scene {
  position = 0
  senderLife = 7
  released = 0
  connection = 1
  isCrowded = false
  committed = 0
  handled = 0
  readonly inputs: Inputs

  constructor(commits = true, keptMax = 10) {
    this.inputs = new Inputs(commits, keptMax)
    const scene = this
    const link: InputLink = {
      canRelease: true,
      get position() { return scene.position },
      get senderLife() { return scene.senderLife },
      get connection() { return scene.connection },
      get isCrowded() { return scene.isCrowded },
      release: (position) => { this.released = Math.max(this.released, position) },
    }
    this.inputs.add(1, link)
  }

  consume(position: number): void {
    this.position = position
    this.inputs.consumed(0)
  }

  tick(isClean = true): number {
    const scene = this
    const channel = {
      get position() { return scene.committed },
      hasReached: (position: number) => scene.handled >= position,
    } as Partial<MessageChannel> as MessageChannel
    this.inputs.tick(isClean, () => [channel])
    return this.released
  }
}

test('a link is given back up to what peers have handled', () => {
  const scene = new Scene()
  scene.consume(5)
  scene.committed = 100
  assert.equal(scene.tick(), 0)
  scene.consume(8)
  scene.committed = 200
  assert.equal(scene.tick(), 0, 'the peer has handled nothing yet')
  scene.handled = 100
  assert.equal(scene.tick(), 5)
  scene.handled = 200
  assert.equal(scene.tick(), 8)
})

test('without commit a link is given back as it is consumed', () => {
  const scene = new Scene(false)
  scene.consume(5)
  assert.equal(scene.released, 5)
})

test('what is set aside holds a link up, within a bound', () => {
  const scene = new Scene()
  scene.consume(10)
  assert.equal(scene.tick(false), 0)
  assert.equal(scene.tick(false), 0, 'not even noted')
  scene.consume(11)
  scene.tick(false)
  assert.equal(scene.tick(false), 11)
})

test('a link is given back when it is crowded, and that is counted', () => {
  const scene = new Scene()
  scene.consume(9)
  scene.committed = 100
  scene.tick()
  scene.isCrowded = true
  assert.equal(scene.tick(), 9)
  assert.equal(scene.inputs.early, 9)
})

test('what was noted means nothing for other peers, or another connection', () => {
  const scene = new Scene()
  scene.consume(9)
  scene.tick()
  scene.inputs.forget()
  scene.committed = 100
  assert.equal(scene.tick(), 0)
  scene.connection = 2
  scene.position = 3
  scene.handled = 100
  assert.equal(scene.tick(), 0, 'noted of a connection that is over')
  assert.equal(scene.tick(), 3)
})

test('a record says how far the links of the present switches were consumed', () => {
  const scene = new Scene()
  scene.consume(5)
  const words = scene.inputs.words.slice()
  scene.consume(6)
  assert.equal(coveredBy(words, 1, 0x10007), 5)
  assert.equal(coveredBy(words, 1, 0x10008), 0)
  assert.equal(coveredBy(words, 2, 0x10007), 0)
  assert.equal(coveredBy(null, 1, 0x10007), 0)
})

test('what has come from the next life of a switch counts as of that one, whenever it is heard of', () => {
  const scene = new Scene()
  scene.consume(5)
  scene.senderLife = 8
  scene.consume(6)
  assert.deepEqual([7, 8].map((life) => coveredBy(scene.inputs.words, 1, life)), [0, 6])
})
