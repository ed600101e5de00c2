/**
 * The client's programs that are written here: DNS questions, WebSocket echoes, HTTP/2 streams, HTTP sessions that are kept alive. Each
 * checks all that it gets, and that it gets it once and in order.
 */

import { createHash } from 'node:crypto'
import { createSocket, type Socket } from 'node:dgram'
import { Agent, get } from 'node:http'
import { connect } from 'node:http2'
import { setTimeout as sleep } from 'node:timers/promises'
import { Port, Tally, type ClientPlan, type Session, type WebFile } from './outcome.ts'

const PERIOD_MS = 20
/** How long the end of anything is waited for. */
const PATIENCE_MS = 20_000

const urlHost = (host: string): string => host.includes(':') ? `[${host}]` : host

/** Waits until something is so; false if it does not come. */
async function comes(isSo: () => boolean): Promise<boolean> {
  for (const end = performance.now() + PATIENCE_MS; !isSo();) {
    if (performance.now() > end) return false
    await sleep(10)
  }
  return true
}

/**
 * DNS: a question every 10 ms, in turns over a socket that stays and over one of its own, asked again after half a second with another
 * number as resolvers do. An answer to the same number twice is a duplicate.
 */
export function dnsSession({ hosts }: ClientPlan): Session {
  const tally = new Tally()
  const AGAIN_MS = 500
  const asked = new Map<string, { answers: number, onAnswer: () => void }>()
  const receive = (message: Buffer): void => {
    const name = message.subarray(13, 13 + message[12]).toString('latin1')
    const question = asked.get(name)
    if (question === undefined) return tally.fault(`DNS: an answer to ${name}, which nobody asked`)
    question.answers++
    if (question.answers > 1) tally.duplicates++
    question.onAnswer()
  }
  const socketFor = (host: string): Socket => {
    tally.connections++
    return createSocket(host.includes(':') ? 'udp6' : 'udp4', receive).on('error', (error) => { tally.fault(error) })
  }
  const standing = hosts.map((host) => ({ host, socket: socketFor(host), hear: tally.clock.open() }))
  let count = 0
  let open = 0
  let isOver = false

  const ask = async (host: string, socket: Socket, hear: () => void): Promise<void> => {
    open++
    const number = count++
    let isAnswered = false
    for (let attempt = 0; attempt < 20 && !isAnswered; attempt++) {
      const name = `q${number}-${attempt}`
      if (attempt > 0) tally.lost++
      const answered = Promise.withResolvers<void>()
      asked.set(name, { answers: 0, onAnswer: () => {
        isAnswered = true
        answered.resolve()
      } })
      const query = Buffer.concat([Buffer.from([number >> 8 & 0xff, number & 0xff, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.length]),
        Buffer.from(name, 'latin1'), Buffer.from([0, 0, 1, 0, 1])])
      socket.send(query, Port.dns, host)
      await Promise.race([answered.promise, sleep(AGAIN_MS)])
    }
    if (isAnswered) {
      hear()
      tally.complete++
    } else {
      tally.fault('DNS: no answer to twenty questions')
    }
    open--
  }
  const asking = (async () => {
    while (!isOver) {
      for (const { host, socket, hear } of standing) {
        void ask(host, socket, hear)
        const own = socketFor(host)
        void ask(host, own, tally.clock.open()).finally(() => { setTimeout(() => { own.close() }, 1000) })
      }
      await sleep(20)
    }
  })()
  return {
    async stop() {
      isOver = true
      await asking
      if (!await comes(() => open === 0)) tally.fault('DNS: questions are open')
      // Doubles may come late.
      await sleep(300)
      for (const { socket } of standing) socket.close()
      return tally.outcome('dns')
    },
  }
}

/** WebSocket: a number every 20 ms, which the server echoes. */
export function webSocketSession({ hosts, webSockets }: ClientPlan): Session {
  const tally = new Tally()
  let isOver = false
  const ends = Array.from({ length: webSockets }, async (_, index) => {
    const hear = tally.clock.open()
    const socket = new WebSocket(`ws://${urlHost(hosts[index % hosts.length])}:${Port.webSocket}/`)
    tally.connections++
    let sent = 0
    let echoed = 0
    const closed = Promise.withResolvers<void>()
    socket.onmessage = ({ data }) => {
      hear()
      if (data !== `${echoed}`) tally.fault(`WebSocket: ${String(data)} instead of ${echoed}`)
      echoed++
      tally.complete++
    }
    socket.onopen = () => { hear() }
    socket.onerror = () => { tally.fault('WebSocket: error') }
    socket.onclose = ({ code }) => {
      if (!isOver) tally.fault(`WebSocket: closed with ${code}`)
      closed.resolve()
    }
    while (!isOver && socket.readyState <= WebSocket.OPEN) {
      if (socket.readyState === WebSocket.OPEN) socket.send(`${sent++}`)
      await sleep(PERIOD_MS)
    }
    if (!await comes(() => echoed === sent)) tally.fault(`WebSocket: ${echoed} of ${sent} echoes`)
    socket.close()
    await Promise.race([closed.promise, sleep(2000)])
  })
  return {
    async stop() {
      isOver = true
      await Promise.all(ends)
      return tally.outcome('websocket')
    },
  }
}

/** HTTP/2: a connection to each host with streams that tick. */
export function http2Session({ hosts, streams }: ClientPlan): Session {
  const tally = new Tally()
  let isOver = false
  const sessions = hosts.map((host) => {
    const session = connect(`http://${urlHost(host)}:${Port.http2}`)
    tally.connections++
    session.on('error', (error) => { tally.fault(error) })
    session.on('close', () => { if (!isOver) tally.fault('HTTP/2: closed') })
    for (let index = 0; index < streams; index++) {
      const hear = tally.clock.open()
      const request = session.request({ ':path': `/${index}` })
      let next = 0
      let rest = ''
      request.setEncoding('utf8').on('data', (part: string) => {
        hear()
        const lines = (rest + part).split('\n')
        rest = lines.pop() ?? ''
        for (const line of lines) {
          if (line !== `${next}`) tally.fault(`HTTP/2: ${line} instead of ${next}`)
          next++
          tally.complete++
        }
      })
      request.on('error', (error) => { if (!isOver) tally.fault(error) })
      request.on('end', () => { if (!isOver) tally.fault('HTTP/2: a stream has ended') })
    }
    return session
  })
  return {
    async stop() {
      isOver = true
      const before = tally.complete
      if (!await comes(() => tally.complete > before + sessions.length * streams)) tally.fault('HTTP/2: nothing ticks any more')
      for (const session of sessions) session.destroy()
      return tally.outcome('http2')
    },
  }
}

/** HTTP over connections that are kept alive: a file after the other, each checked. */
export function keepAliveSession({ hosts, keepAlive, files }: ClientPlan): Session {
  const tally = new Tally()
  let isOver = false
  const fetchOne = (agent: Agent, host: string, { name, digest }: WebFile, hear: () => void): Promise<void> => new Promise((resolve, reject) => {
    const hash = createHash('sha256')
    get({ host, port: Port.web, path: `/fast/${name}`, agent }, (response) => {
      response.on('data', (part: Buffer) => {
        hear()
        hash.update(part)
      })
      response.on('error', reject)
      response.on('end', () => {
        if (hash.digest('hex') === digest) tally.complete++
        else tally.fault(`keep-alive: ${name} differs`)
        resolve()
      })
    }).on('error', reject)
  })
  const ends = Array.from({ length: keepAlive }, async (_, index) => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const host = hosts[index % hosts.length]
    tally.connections++
    const hear = tally.clock.open()
    for (let count = index; !isOver; count++) {
      await fetchOne(agent, host, files[count % files.length], hear).catch((error: unknown) => { tally.fault(error) })
      await sleep(100)
      hear('asking')
    }
    agent.destroy()
  })
  return {
    async stop() {
      isOver = true
      await Promise.race([Promise.all(ends), sleep(PATIENCE_MS).then(() => { tally.fault('keep-alive: a request does not end') })])
      return tally.outcome('keep-alive')
    },
  }
}
