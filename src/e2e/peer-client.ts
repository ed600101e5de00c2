/**
 * Program of the client's namespace: runs all programs of a plan (its argument, JSON) until its input ends; prints what they have seen, and
 * how long this process itself stood still, as JSON. Stalls count from the first line of input on.
 */

import { monitorEventLoopDelay } from 'node:perf_hooks'
import { cleanUp, curlSession, iperfSessions, sshSession } from './client-programs.ts'
import { dnsSession, http2Session, keepAliveSession, webSocketSession } from './client-sessions.ts'
import { StallClock, type ClientPlan } from './outcome.ts'

process.on('exit', cleanUp)
process.on('SIGTERM', () => { process.exit(1) })

const plan = JSON.parse(process.argv[2]) as ClientPlan
const delay = monitorEventLoopDelay({ resolution: 5 })
delay.enable()
const sessions = [
  dnsSession(plan), webSocketSession(plan), http2Session(plan), keepAliveSession(plan), curlSession(plan),
  ...plan.keyFile === '' ? [] : [sshSession(plan)],
  ...plan.iperfSeconds === 0 ? [] : iperfSessions(plan),
]
process.stdin.once('data', () => {
  StallClock.begin()
  delay.reset()
})
await new Promise((resolve) => { process.stdin.on('end', resolve).resume() })
const ownPauseMs = Math.round(delay.max / 1e6)
const outcomes = await Promise.all(sessions.map((session) => session.stop()))
process.stdout.write(`${JSON.stringify({ outcomes, ownPauseMs })}\n`, () => { process.exit(0) })
