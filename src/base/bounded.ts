/**
 * Bounded maps and sets: what is set last is the newest, and where there is no room the oldest goes. They are those of JavaScript, which keep
 * the order in which keys came.
 */

import { assert } from './assert.ts'

/** Sets a key as the newest of at most `max`. True if the oldest had to go. */
export function setBounded<K, V>(map: Map<K, V>, key: K, value: V, max: number): boolean {
  assert(max > 0, 'a bounded map has room')
  map.delete(key)
  const isFull = map.size >= max
  if (isFull) map.delete(map.keys().next().value as K)
  map.set(key, value)
  return isFull
}

/** Adds a value as the newest of at most `max`. True if the oldest had to go. */
export function addBounded<T>(set: Set<T>, value: T, max: number): boolean {
  assert(max > 0, 'a bounded set has room')
  set.delete(value)
  const isFull = set.size >= max
  if (isFull) set.delete(set.values().next().value as T)
  set.add(value)
  return isFull
}
