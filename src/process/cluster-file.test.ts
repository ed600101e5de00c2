/**
 * What a cluster file says of scaling, and what the autoscaler makes of it; what it says of machines.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defaultAutoscalerLimits } from '../controller/autoscaler.ts'
import { clusterSchema, specOf, type ClusterSpec } from './cluster-file.ts'
import { ClusterFolder } from './cluster-folder.ts'
import { machineAddresses, machineNameOf, runtimeMember, switchMembers } from './cluster-members.ts'
import { checkAgainst, pathText } from './config-problem.ts'
import { limitsOf } from './controller-process.ts'
import type { RunConfig } from './run-config.ts'

const scalingOf = (scale: unknown): unknown =>
  limitsOf({ clusterId: 1, spec: specOf(clusterSchema.parse({ scale }), { chain: [] } as unknown as RunConfig, undefined) }).autoscaler

test('defaults of the file are those of the autoscaler', () => {
  assert.deepEqual(scalingOf({}), defaultAutoscalerLimits)
})

test('all times follow the pause, what a runtime aims for lies between low and high', () => {
  assert.deepEqual(scalingOf({ min: 1, max: 3, high: 0.5, low: 0.3, pause: 3 }), {
    ...defaultAutoscalerLimits, runtimesMin: 1, runtimesMax: 3, high: 0.5, low: 0.3, target: 0.35,
    slowUs: 1e6, peakUs: 12e6, outPauseUs: 0.5e6, inAfterOutUs: 6e6, inPauseUs: 3e6 })
})

test('what cannot be is refused', () => {
  for (const [scale, reason] of [
    [{ min: 3, max: 2 }, /min is more than max/], [{ low: 0.8 }, /low is not below high/], [{ pause: 0 }, /pause/],
  ] as const) assert.match(clusterSchema.safeParse({ scale }).error?.message ?? '', reason)
})

const near = { name: 'one', interface: 'eth1' }
const far = { name: 'two', interface: 'eth1', agent: { host: '127.0.0.1' } }

test('machines: what cannot be is refused, with the place', () => {
  const fault = (content: object): string => {
    const problem = checkAgainst(clusterSchema, { token: 'token.txt', ...content }).problems[0]
    return problem === undefined ? '' : `${pathText(problem.path)}: ${problem.message}`
  }
  const remote = (more: object): object => ({ machines: [near, { ...far, agent: { host: '192.0.2.2', ...more } }] })
  assert.equal(fault({ machines: [near, far] }), '')
  assert.equal(fault(remote({ clear: true })), '')
  assert.equal(fault(remote({ authority: 'ca.pem' })), '')
  assert.match(fault(remote({})), /^machines\[1\]\.agent: .*TLS.*clear: true/)
  assert.match(fault({ machines: [near] }), /^machines: machines must have at least 2/)
  const many = (count: number): object[] => [near, ...Array.from({ length: count - 1 }, (_, index) => ({ ...far, name: `m${index}` }))]
  assert.equal(fault({ machines: many(16) }), '')
  assert.match(fault({ machines: many(17) }), /^machines: machines must have at most 16/)
  assert.match(fault({ machines: [near, far], token: undefined }), /^machines: .*token: FILE/)
  assert.match(fault({ machines: [far, near] }), /^machines\[0\]\.agent: .*first machine is this one/)
  assert.match(fault({ machines: [near, { ...far, agent: undefined }] }), /^machines\[1\]\.agent: .*where its agent is/)
  assert.match(fault({ machines: [near, { ...far, name: 'one' }] }), /^machines\[1\]\.name: .*two machines named one/)
  const narrow = [{ ...near, runtimes: 1 }, { ...far, runtimes: 1 }]
  assert.match(fault({ machines: narrow, runtimes: 3 }), /room for 2 runtimes, and there are to be 3/)
  assert.match(fault({ machines: narrow, scale: { min: 1, max: 5 } }), /room for 2 runtimes, and there are to be 5/)
  assert.match(fault({ machines: [near, far], ingress: { type: 'af-packet', interface: 'eth1' } }), /^machines\[0\]\.interface: .*ingress/)
  assert.equal(fault({ machines: [near, far], ingress: { type: 'af-packet', interface: 'eth1', namespace: 'outside' } }), '')
})

test('machines: nodes know their network, ids go round, long segments are cut at the outer sides', () => {
  const specWith = (content: object): ClusterSpec => specOf(clusterSchema.parse(content), { chain: [] } as unknown as RunConfig, undefined)
  const machines = [near, { ...far, namespace: 'inside' }]
  const spec = specWith({ token: 't', machines, ingress: { type: 'af-packet', interface: 'a' }, egress: { type: 'capture' } })
  const folder = new ClusterFolder('/folder')
  const identity = { clusterId: 1, spec }
  assert.deepEqual(switchMembers(identity, folder).map(({ network }) => network),
    [0, 0].map((machine) => ({ interface: 'eth1', machine, machines: 2 })))
  assert.deepEqual([11, 12, 13].map((id) => runtimeMember(identity, folder, id, 1, 1).network), [
    { interface: 'eth1', machine: 0, machines: 2 }, { interface: 'eth1', namespace: 'inside', machine: 1, machines: 2 },
    { interface: 'eth1', machine: 0, machines: 2 }])
  assert.deepEqual([1, 2, 11, 12, 13].map((id) => machineNameOf(spec, id)), ['one', 'one', 'one', 'two', 'one'])
  assert.deepEqual([spec.ingress, spec.egress], [{ type: 'af-packet', interface: 'a', segments: 'cut' }, { type: 'capture' }])
  assert.deepEqual(machineAddresses(spec), [{ name: 'two', host: '127.0.0.1', port: 7090, authority: undefined }])
  const alone = specWith({ ingress: { type: 'af-packet', interface: 'a' } })
  assert.deepEqual([alone.ingress, runtimeMember({ clusterId: 1, spec: alone }, folder, 12, 1, 1).network, machineNameOf(alone, 12)],
    [{ type: 'af-packet', interface: 'a' }, undefined, ''])
})

test('a router on one side needs one on the other', () => {
  const problemOf = (content: object): string =>
    clusterSchema.safeParse(content).error?.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ') ?? ''
  const router = { addresses: ['10.1.0.1/24'] }
  const port = { type: 'af-packet', interface: 'in' }
  assert.match(problemOf({ ingress: { ...port, router }, egress: { ...port, interface: 'out' } }), /^egress: the other side is a router/)
  assert.match(problemOf({ ingress: port, egress: { ...port, interface: 'out', router } }), /^ingress: the other side is a router/)
  assert.equal(problemOf({ ingress: { ...port, router }, egress: { type: 'none' } }), '')
})

test('containers and their ports are as they can be', () => {
  const problemOf = (content: object): string =>
    clusterSchema.safeParse(content).error?.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ') ?? ''
  assert.equal(problemOf({ launcher: 'container' }), '')
  assert.match(problemOf({ container: {} }), /^container: nothing is in a container without launcher: container$/)
  const port = { type: 'af-packet', interface: 'in', namespace: 'middle' }
  assert.match(problemOf({ launcher: 'container', ingress: port }), /^ingress\.namespace: a container has the engine's network namespace/)
  assert.match(problemOf({ launcher: 'container', egress: { type: 'tap', interface: 'nf0' } }), /^egress\.type: .*use af-packet$/)
})
