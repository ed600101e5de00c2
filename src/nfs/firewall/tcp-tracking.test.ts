/**
 * Transcripts of connections, one segment a line:
 *
 *     > SA 300 101 +10 w=1000 s=7 : syn-received challenge
 *     │ │  │   │   │   │      │     │            └ outcome, `valid` unless told
 *     │ │  │   │   │   │      │     └ state afterwards
 *     │ │  │   │   │   │      └ window scale option   └ window, 1000 unless told   └ bytes of payload
 *     │ │  │   └ acknowledgement, only with A        └ `frag`: a later fragment, without header
 *     │ └ flags and sequence number
 *     └ `>` from the side that comes first, `<` from the other
 *
 * Every transcript runs eight times: with the sides exchanged or not, and with numbers moved so that they pass 2^31 and
 * 2^32.
 */

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Random } from '../../base/random.ts'
import { Arena } from '../../memory/arena.ts'
import { internal, struct, u16, u8 } from '../../nf/index.ts'
import { tcpFlagBits } from '../../testing/packet-builder.ts'
import { SimulatedConnection } from './simulated-connection.ts'
import {
  makeTrackEstablished, TcpOutcome, tcpOutcome, tcpSide, TcpState, tcpState, TcpTracker,
  type TcpTrack, type TcpTrackingOptions,
} from './tcp-tracking.ts'

const trackState = struct({
  tcp: tcpState, forward: internal(tcpSide), reverse: internal(tcpSide), flags: internal(u16), scales: internal(u8),
})
const SIDES = trackState.layout.find((field) => field.name === 'forward')!.offset

const arena = new Arena(1 << 20)
const place = arena.allocate('track', 256)
const trackEstablished = makeTrackEstablished(arena)

function freshTrack(offset = 0): TcpTrack & { o: number } {
  const track = trackState.bind({ arena })
  track.o = place + offset
  arena.u8.fill(0, track.o, track.o + trackState.bytes)
  return track
}

const strict: TcpTrackingOptions = { midStream: true, windowCheck: true, followsInvalid: false }

const LINE = /^([<>]) (frag|[A-Z]+|-) (\d+)((?: [+\w=]*\d+)*) : (\S+)(?: (\S+))?$/

function transcript(text: string, options: Partial<TcpTrackingOptions> = {}): void {
  const lines = text.split('\n').map((line) => line.replace(/#.*/, '').trim().replace(/\s+/g, ' '))
    .filter((line) => line !== '')
  for (const mirrored of [false, true]) {
    for (const [moveFirst, moveSecond] of [[0, 0], [-150, -350], [0x7fffff00, 0x7ffffe80], [-4000, 0x7ffffe00]]) {
      const tracker = new TcpTracker({ ...strict, ...options })
      const track = freshTrack()
      lines.forEach((line, index) => {
        const parts = LINE.exec(line)
        assert.ok(parts !== null, `not a line: ${line}`)
        const [, side, flagText, sequenceText, rest, state, outcome = 'valid'] = parts as unknown as string[]
        const second = side === '<'
        const own = second ? moveSecond : moveFirst
        const other = second ? moveFirst : moveSecond
        const words = rest.split(' ')
        const value = (name: string, missing: number): number => {
          const word = words.find((one) => one.startsWith(name))
          return word === undefined ? missing : Number(word.slice(name.length))
        }
        const sequence = (Number(sequenceText) + own) | 0
        const direction = second !== mirrored ? 1 : 0
        let got: number
        if (flagText === 'frag') {
          got = tracker.trackLaterFragment(track, direction, sequence, value('+', 0))
        } else {
          const flags = flagText === '-' ? 0 : tcpFlagBits(flagText)
          const hasAck = (flags & 16) !== 0
          const ack = hasAck ? (Number(words.find((word) => /^\d+$/.test(word))) + other) | 0 : 0
          got = tracker.track(track, direction, flags, sequence, ack, value('w=', 1000), value('+', 0), value('s=', -1))
        }
        const where = `line ${index + 1}: ${line} (mirrored ${mirrored}, moved ${moveFirst})`
        assert.equal(`${tcpState.names[track.tcp]} ${tcpOutcome.names[got]}`, `${state} ${outcome}`, where)
      })
    }
  }
}

const open = `
  > S  100     : syn-sent
  < SA 300 101 : syn-received
  > A  101 301 : established
`

describe('opening', () => {
  it('follows the three-way handshake (RFC 9293 §3.5, figure 6)', () => transcript(open))

  it('takes repeated SYN and SYN+ACK', () => transcript(`
    > S  100     : syn-sent
    > S  100     : syn-sent
    < SA 300 101 : syn-received
    > S  100     : syn-received
    < SA 300 101 : syn-received
    > A  101 301 : established
    < SA 300 101 : established old-duplicate
    > A  101 301 : established
  `))

  it('takes a new attempt with other numbers', () => transcript(`
    > S  100     : syn-sent
    > S  5000    : syn-sent
    < SA 300 101 : syn-sent unacceptable-ack
    < SA 300 5001 : syn-received
    < SA 900 5001 : syn-received   # the server has forgotten its first answer
    > A  5001 301 : syn-received unacceptable-ack
    > A  5001 901 : established
  `))

  it('leaves a SYN with other numbers to be challenged once there is an answer', () => {
    for (const sequence of [101, 5000, 4_000_000_000]) {
      transcript(`
        > S  100          : syn-sent
        < SA 300 101      : syn-received
        > S  ${sequence}  : syn-received challenge
        > A  101 301      : established
      `)
    }
  })

  it('takes both sides opening at once (RFC 9293 §3.5, figure 7)', () => transcript(`
    > S  100     : syn-sent
    < S  300     : simultaneous-open
    > SA 100 301 : syn-received
    < SA 300 101 : established
    > A  101 301 : established
  `))

  it('takes a split handshake of four and of five segments', () => {
    transcript(`
      > S  100     : syn-sent
      < S  300     : simultaneous-open
      > SA 100 301 : syn-received
      < A  301 101 : established
    `)
    transcript(`
      > S  100     : syn-sent
      < A  300 101 : syn-sent challenge
      < S  300     : simultaneous-open
      > SA 100 301 : syn-received
      < A  301 101 : established
    `)
  })

  it('takes data on the SYN and before the third segment (RFC 7413)', () => {
    transcript(`
      > S  100 +200 : syn-sent
      < SA 300 301  : syn-received
      < PA 301 301 +900 : syn-received
      > A  301 1201 : established
    `)
    // Refused, or sent again without it.
    transcript(`
      > S  100 +200 : syn-sent
      > S  100      : syn-sent
      < SA 300 101  : syn-received
      > A  101 301 +200 : established
    `)
    transcript(`
      > S  100 +200 : syn-sent
      > S  100      : syn-sent
      < SA 300 301  : syn-received
      > A  301 301  : established
    `)
  })

  it('does not take a number within the data of the SYN for the SYN', () => transcript(`
    > S  100 +50 : syn-sent
    < SA 300 101 : syn-received
    > S  120     : syn-received challenge
  `))

  it('takes SYN with and without data in any order', () => {
    transcript(`
      > S  100 +50      : syn-sent
      < SA 300 151      : syn-received
      < SA 300 101      : syn-received old-duplicate
      < SA 300 100      : syn-received old-duplicate
      < SA 301 101      : syn-received unacceptable-ack
      < SA 300 152      : syn-received unacceptable-ack
      > A  151 301      : established
    `)
    transcript(`
      > S  100          : syn-sent
      < SA 300 101      : syn-received
      > S  100 +50      : syn-received
      < SA 300 151      : syn-received
      > A  151 301      : established
    `)
    transcript(`
      > S  100          : syn-sent
      < SA 300 101      : syn-received
      < S  300 +50      : syn-received
      > A  101 351      : established
    `)
  })

  it('ends the handshake only with an acknowledgement of the SYN (RFC 9293 §3.10.7.4)', () => transcript(`
    > S  100     : syn-sent
    < SA 300 101 : syn-received
    > A  101 300 : syn-received unacceptable-ack
    > A  101 302 : syn-received unacceptable-ack
    > A  101 301 : established
  `))

  it('lets an old connection of the peer be found and reset (RFC 9293 §3.5.1, figure 10)', () => transcript(`
    > S  400      : syn-sent
    < A  300 100  : syn-sent challenge
    > R  100      : syn-sent challenge
    > S  400      : syn-sent
    < SA 700 401  : syn-received
    > A  401 701  : established
  `))

  it('takes what was seen in the wrong order', () => transcript(`
    < SA 300 101 w=500 s=3 : syn-received
    > S  100 w=500 s=4     : syn-received
    > A  101 301           : established
    < A  301 101 +8000     : established
    < A  8301 101 +8000    : established
  `))

  it('takes the shift of a SYN that was not seen for the largest, if there can be one', () => {
    transcript(`
      < SA 300 101 w=500 s=0  : syn-received
      < A  65836 101 +10      : syn-received          # 301 + 65535
      < A  65837 101 +10      : syn-received out-of-window
      > A  101 301 w=10       : established
      < A  164141 101 +10     : established           # 301 + 10 << 14
      < A  164142 101 +10     : established out-of-window
    `)
    transcript(`
      < SA 300 101 w=500      : syn-received
      > A  101 301 w=65535    : established
      < A  65837 101 +10      : established out-of-window
    `)
  })

  it('does not take a stranger\'s data for the answer', () => {
    transcript(`
      > S  100 : syn-sent
      < PA 9000 77777 +10 : syn-sent no-handshake
      > PA 777777 301 +10 : syn-sent no-handshake
      < FA 9000 77777 : syn-sent no-handshake
      < PA 301 102 +10 : syn-sent no-handshake
      < PA 301 100 +10 : syn-sent no-handshake
      > PA 100 301 +10 : syn-sent no-handshake
    `)
    // Where everything passes, it may be that the answer was not seen.
    transcript(`
      > S  100 : syn-sent
      > PA 777777 301 +10 : mid-stream
    `, { followsInvalid: true })
  })

  it('takes a connection whose answer was not seen', () => {
    transcript(`
      > S  100         : syn-sent
      > PA 101 301 +50 : mid-stream
      < A  301 151     : established
    `)
    transcript(`
      > S  100         : syn-sent
      < PA 301 101 +50 : mid-stream
      > A  101 351     : established
    `)
  })
})

describe('data', () => {
  it('moves with the window', () => transcript(`${open}
    > PA 101 301 +1000  : established
    > PA 1101 301 +1000 : established                # at the edge: a probe may stand there
    > PA 2101 301 +1    : established out-of-window
    < A  301 1101       : established
    > PA 2101 301 +100  : established
    > PA 2102 301 +100  : established out-of-window
  `))

  it('scales windows when both sides offer it, and only after the SYN (RFC 7323 §2.2)', () => {
    transcript(`
      > S  100 w=1000 s=2       : syn-sent
      < SA 300 101 w=1000 s=7   : syn-received
      > A  101 301 w=1000       : established
      > A  1102 301 +10         : established out-of-window   # the window of a SYN is not scaled
      > A  1101 301 +10         : established
      < A  4302 101 +10         : established out-of-window
      < A  4301 101 +10         : established                 # 301 + 1000 << 2
      > A  128101 301 +10       : established                 # 101 + 1000 << 7
      > A  128102 301 +10       : established out-of-window
    `)
    for (const [first, second] of [['s=2', ''], ['', 's=7']]) {
      transcript(`
        > S  100 w=1000 ${first}     : syn-sent
        < SA 300 101 w=1000 ${second} : syn-received
        > A  101 301 w=1000          : established
        < A  301 101 w=1000          : established
        < A  1301 101 +10            : established
        < A  1302 101 +10            : established out-of-window
        > A  1101 301 +10            : established
        > A  1102 301 +10            : established out-of-window
      `)
    }
  })

  it('scales when one of several SYN has offered it, because the answer shows which was heard', () => {
    for (const [first, second] of [['s=4', ''], ['', 's=4']]) {
      transcript(`
        > S  100 ${first}    : syn-sent
        > S  100 ${second}   : syn-sent
        < SA 300 101 s=4     : syn-received
        > A  101 301         : established
        < A  16301 101 +10   : established              # 301 + 1000 << 4
      `)
    }
    transcript(`
      > S  100 w=10          : syn-sent
      > S  100 w=10 s=0      : syn-sent
      < SA 300 101 w=10 s=4  : syn-received
      > A  101 301           : established
      < A  301 101 w=10      : established
      > A  261 301 +10       : established              # 101 + 10 << 4
    `)
  })

  it('counts a scale above 14 as 14 (RFC 7323 §2.3)', () => transcript(`
    > S  100 w=1 s=15     : syn-sent
    < SA 300 101 w=1 s=0  : syn-received
    > A  101 301 w=1      : established
    < A  16685 101 +10    : established
    < A  16686 101 +10    : established out-of-window
  `))

  it('refuses acknowledgements of what was not sent', () => transcript(`${open}
    < A  301 102 : established unacceptable-ack
    > A  101 301 +10 : established
    < A  301 111 : established
    < A  301 112 : established unacceptable-ack
  `))

  it('lets old segments and keep-alives pass and learns nothing from them', () => transcript(`${open}
    > A  101 301 +1000  : established
    < A  301 1101       : established
    > A  1101 301 +1000 : established
    < A  301 2101       : established
    > A  101 301 +1000  : established            # not older than a window
    > A  101 301 +999   : established old-duplicate
    > A  2100 301       : established            # keep-alive (RFC 9293 §3.8.4)
    > A  2100 301 +1    : established
    < A  301 2101       : established
    > A  3101 301 +1000 : established
    > A  3102 301 +1000 : established out-of-window
  `))

  it('takes an acknowledgement that is later than the largest window as old', () => transcript(`
    > S  100 w=60000 s=1     : syn-sent
    < SA 300 101 w=60000 s=1 : syn-received
    > A  101 301             : established
    < A  301 101 w=60000     : established
    > A  60101 301 +60000    : established
    < A  301 120101          : established
    < A  301 101             : established           # 120,000 bytes late: the largest window
    < A  301 100             : established old-duplicate
    < FA 301 100             : established old-duplicate
  `))

  it('lets an acknowledgement be 66,000 bytes late, however small the windows', () => transcript(`${open}
    > A  1101 301 +65000 : established
    < A  301 66101       : established
    < A  301 101         : established
    < A  301 100         : established old-duplicate
  `))

  it('follows later fragments as far as the window goes', () => transcript(`${open}
    > A    101 301 +500  : established
    > frag 601 +400      : established
    < A    301 1001      : established
    < A    301 1002      : established unacceptable-ack
    > frag 2001 +400     : established
    > frag 2002 +400     : established out-of-window
  `))
})

describe('later fragments', () => {
  it('say nothing where nothing is known of the connection', () => {
    transcript('> frag 5000 +40 : none')
    transcript('> S 100 : syn-sent\n > frag 5000 +40 : syn-sent\n < frag 5000 +40 : syn-sent')
    transcript(`${open} > R 101 : closed\n > frag 5000 +40 : closed`)
    transcript('> PA 1000 5000 +100 : mid-stream\n > frag 1500000000 +40 : mid-stream')
  })
})

describe('closing', () => {
  const finished = `${open}
    > FA 101 301 : fin-wait
    < A  301 102 : close-wait
    < FA 301 102 : last-ack
    > A  102 302 : time-wait
  `

  it('follows a close and its repetitions (RFC 9293 §3.6, figure 12)', () => transcript(`${finished}
    < FA 301 102 : time-wait
    > A  102 302 : time-wait
  `))

  it('follows both sides closing at once (RFC 9293 §3.6, figure 13)', () => transcript(`${open}
    > FA 101 301 : fin-wait
    < FA 301 101 : last-ack
    > A  102 302 : last-ack
    < A  302 102 : time-wait
  `))

  it('follows FIN with data, and one acknowledgement for both', () => transcript(`${open}
    > FPA 101 301 +10 : fin-wait
    < A   301 111     : fin-wait
    < FA  301 112     : last-ack
    > A   112 302     : time-wait
  `))

  it('lets the other side go on (RFC 9293 §3.6, half-close)', () => transcript(`${open}
    > FA 101 301      : fin-wait
    < PA 301 102 +700 : close-wait
    > A  102 1001     : close-wait
    < PA 1001 102 +70 : close-wait
    > PA 102 1001 +1  : close-wait after-close
    > FA 101 1001     : close-wait
    < FA 1071 102     : last-ack
    > A  102 1072     : time-wait
    < PA 1072 102 +1  : time-wait after-close
  `))

  it('takes FIN before the data in front of it', () => transcript(`${open}
    > FA 201 301      : fin-wait
    > PA 101 301 +100 : fin-wait
    < A  301 202      : close-wait
  `))

  it('takes FIN in the handshake', () => {
    transcript(`
      > S  100     : syn-sent
      < SA 300 101 : syn-received
      > FA 101 301 : fin-wait
    `)
    transcript(`
      > S  100     : syn-sent
      < SA 300 101 : syn-received
      < FA 301 101 : syn-received
      > A  101 302 : close-wait
    `)
  })

  it('takes FIN of a segment in fragments', () => transcript(`${open}
    > FA   101 301 +500 : fin-wait
    > frag 601 +400     : fin-wait
    < A    301 1002     : close-wait
  `))

  it('stays closed to new data, whatever comes late', () => transcript(`${open}
    > R  101         : closed
    < PA 301 101 +10 : closed after-close
    > PA 101 301 +10 : closed after-close
    < A  301 101     : closed
    > R  101         : closed
  `))

  it('is careful with a SYN after the end', () => transcript(`${finished}
    > S  9000      : time-wait challenge
    < SA 5000 9001 : syn-received
    > A  9001 5001 : established
  `))
})

describe('reset', () => {
  it('is believed where the receiver expects it, challenged in the window, else invalid (RFC 5961 §3.2)', () => {
    const sent = `${open}
      > PA 101 301 +500 : established
      < A  301 201      : established
    `
    transcript(`${sent} > R 201 : closed`)
    transcript(`${sent} > R 601 : closed # behind the last byte sent`)
    transcript(`${sent} > RA 601 301 : closed`)
    transcript(`${sent} > R 202 : established challenge`)
    transcript(`${sent} > R 1201 : established challenge`)
    transcript(`${sent} > R 200 : established invalid-reset`)
    transcript(`${sent} > R 1202 : established invalid-reset`)
    transcript(`${sent} > R 0 : established invalid-reset`)
  })

  it('refuses a connection only if it acknowledges the SYN (RFC 9293 §3.10.7.3)', () => {
    const sent = '> S 100 +10 : syn-sent\n'
    transcript(`${sent} < RA 0 101 : closed`)
    transcript(`${sent} < RA 0 111 : closed`)
    transcript(`${sent} < RA 0 100 : syn-sent invalid-reset`)
    transcript(`${sent} < RA 0 112 : syn-sent invalid-reset`)
    transcript(`${sent} < R 0 : syn-sent invalid-reset`)
    transcript(`${sent} > R 111 : closed`)
  })

  it('ends a handshake, as port scanners do', () => transcript(`
    > S  100     : syn-sent
    < SA 300 101 : syn-received
    > R  100     : syn-received invalid-reset
    > R  101     : closed
  `))

  it('does not keep a true answer out', () => transcript(`
    > S  100     : syn-sent
    < RA 0 101   : closed
    < FA 1 101   : closed
    < SA 300 101 : syn-received
    > A  101 301 : established
  `))

  it('keeps out an answer to what was answered before', () => transcript(`${open}
    > R  101         : closed
    < SA 300 101     : closed old-duplicate
    < SA 301 101     : closed challenge
    < SA 90000 101   : closed challenge
  `))

  it('can hardly be guessed', () => {
    const tracker = new TcpTracker(strict)
    const random = new Random(7)
    const track = freshTrack()
    tracker.track(track, 0, 2, 99, 0, 65535, 0, 7)
    tracker.track(track, 1, 18, 499, 100, 65535, 0, 7)
    tracker.track(track, 0, 16, 100, 500, 65535, 0, -1)
    tracker.track(track, 1, 16, 500, 100, 65535, 0, -1)
    let passed = 0
    for (let i = 0; i < 20_000; i++) {
      const flags = random.pick([4, 4 | 16])
      const outcome = tracker.track(track, random.below(2), flags, random.int32(), random.int32(), 0, 0, -1)
      if (outcome !== TcpOutcome['invalid-reset']) passed++
      assert.equal(track.tcp, TcpState.established)
    }
    // A window of 8 MiB is 1/512 of the space.
    assert.ok(passed > 10 && passed < 100, `${passed} passed`)
  })
})

describe('what does not belong', () => {
  it('refuses impossible flags', () => {
    for (const flags of ['-', 'F', 'P', 'U', 'FPU', 'SF', 'SFA', 'SR', 'SRA', 'RF', 'RFA', 'FSRPAU']) {
      const line = flags.includes('A') ? `${flags} 101 301` : `${flags} 101`
      transcript(`> ${line} : none bad-flags`)
      transcript(`${open} > ${line} : established bad-flags`)
    }
    for (const flags of ['SEW', 'SU', 'SP']) transcript(`> ${flags} 100 : syn-sent`)
    for (const flags of ['PA', 'UA', 'AEW', 'PUAE']) transcript(`${open} > ${flags} 101 301 : established`)
  })

  it('lets SYN in an open connection be challenged (RFC 5961 §4.2), and follows when both sides agree', () => {
    transcript(`${open}
      > S  70000       : established challenge
      < A  301 101     : established
      > R  101         : closed
    `)
    transcript(`${open}
      < SA 9000 5001   : established challenge   # nobody asked
      > S  70000       : established challenge
      < SA 90000 70001 : syn-received
      > A  70001 90001 : established
      < A  90001 70001 +10 : established
    `)
    // Late copies of the handshake begin nothing, wherever a window may have gone meanwhile.
    transcript(`${open}
      > A  1101 301 +65000  : established
      > S  100              : established challenge
      < SA 300 101          : established old-duplicate
      < A  301 66101        : established
      < SA 300 101          : established old-duplicate
      < SA 300 100          : syn-received
    `)
  })

  it('needs a handshake where connections are not taken up in their middle', () => {
    const options = { midStream: false }
    transcript('> PA 101 301 +10 : none no-handshake', options)
    transcript('> FA 101 301 : none no-handshake', options)
    transcript('> SA 101 301 : none no-handshake', options)
    transcript('> R 101 : none no-handshake', options)
    transcript(`
      > S  100         : syn-sent
      > PA 101 301 +10 : syn-sent no-handshake
      > SA 100 301     : syn-sent no-handshake
    `, options)
    transcript(open, options)
  })
})

describe('the middle of a connection', () => {
  it('is taken up by either side, and liberally', () => transcript(`
    > PA 1000 5000 +100 w=1    : mid-stream
    > PA 1100 5000 +100 w=1    : mid-stream
    < A  5000 1200 w=1         : established
    > A  900000000 5000 +1     : established     # any window that scaling can make
    < A  5000 900000003        : established     # what was not seen may have been there
    > FA 900000003 5000        : fin-wait
    < FA 5000 900000004        : last-ack
    > A  900000004 5001        : time-wait
  `))

  it('may be its end', () => {
    transcript(`
      > FA 1000 5000 : fin-wait
      < FA 5000 1001 : last-ack
      > A  1001 5001 : time-wait
    `)
    transcript('> R 1000 : closed')
    transcript(`
      > PA 1000 5000 +100 : mid-stream
      > R  1100           : closed
    `)
    transcript(`
      > FPA 1000 5000 +100 : fin-wait
      > R   1100           : fin-wait challenge
      > R   1101           : closed
    `)
  })

  it('is not so liberal with RST', () => transcript(`
    > PA 1000 5000 +100    : mid-stream
    < A  5000 1100         : established
    > R  1099              : established invalid-reset
    > R  1105              : established challenge
    > R  1100              : closed
  `))

  it('is no place for another picking-up', () => transcript(`
    > PA 1000 5000 +100         : mid-stream
    < A  5000 1100              : established
    > PA 1500000000 5000 +1     : mid-stream     # more than any window: it begins anew
    < A  5000 1500000001        : established
  `))
})

describe('policy', () => {
  it('checks RST alone when told to be liberal, and nothing when told so', () => {
    for (const windowCheck of ['liberal', false] as const) {
      transcript(`${open}
        > PA 5000 301 +10   : established
        < A  301 9000       : established
        > A  9000 301 +10   : established
      `, { windowCheck })
    }
    transcript(`${open} > R 100 : established invalid-reset`, { windowCheck: 'liberal' })
    transcript(`${open} > R 5000 : established challenge`, { windowCheck: 'liberal' })
    transcript(`${open} > R 100 : closed`, { windowCheck: false })
    transcript('> S 100 : syn-sent\n < R 77 : closed', { windowCheck: false })
    transcript(`
      > S  100     : syn-sent
      < SA 300 999 : syn-received
      > A  999 301 : established
    `, { windowCheck: 'liberal' })
    transcript(`
      > S  100     : syn-sent
      < SA 300 101 : syn-received
      > A  101 999 : mid-stream
    `, { windowCheck: 'liberal' })
  })

  it('follows what is acknowledged though it was not seen, when invalid segments pass', () => {
    const options = { followsInvalid: true }
    transcript(`${open}
      < A  301 5000      : established unacceptable-ack
      > PA 5000 301 +100 : established
      < A  301 5100      : established
    `, options)
    // Without it nothing changes.
    transcript(`${open}
      < A  301 5000      : established unacceptable-ack
      > PA 5000 301 +100 : established out-of-window
      < A  301 5100      : established unacceptable-ack
    `)
  })

  it('picks the connection up anew after 16 surprises, when invalid segments pass', () => {
    const far = Array.from({ length: 15 }, (_, i) => `> PA ${5000 + i} 301 +1 : established out-of-window\n`).join('')
    transcript(`${open} ${far}
      > PA 6000 301 +1 : mid-stream out-of-window
      < A  301 6001    : established
      > PA 9000 301 +1 : established
    `, { followsInvalid: true })
    transcript(`${open} ${far} ${far} > A 101 301 : established`)
  })
})

describe('the fast path', () => {
  it('agrees with the slow one', () => {
    const random = new Random(11)
    const tracker = new TcpTracker(strict)
    let taken = 0
    for (let round = 0; round < 3000; round++) {
      const slow = freshTrack()
      const fast = freshTrack(64)
      const isn = [random.int32(), random.int32()]
      const scale = random.chance(0.7) ? random.below(15) : -1
      tracker.track(slow, 0, 2, isn[0], 0, random.below(65536), 0, scale)
      tracker.track(slow, 1, 18, isn[1], (isn[0] + 1) | 0, random.below(65536), 0, random.below(15))
      tracker.track(slow, 0, 16, (isn[0] + 1) | 0, (isn[1] + 1) | 0, random.below(65536), 0, -1)
      for (let i = 0; i < 12 && slow.tcp === TcpState.established; i++) {
        arena.u8.copyWithin(fast.o, slow.o, slow.o + trackState.bytes)
        const direction = random.below(2)
        const sender = direction === 0 ? slow.forward : slow.reverse
        const receiver = direction === 0 ? slow.reverse : slow.forward
        const near = (): number =>
          random.pick([0, 0, 1, -1, 10, random.below(70_000), -random.below(70_000), random.int32()])
        const sequence = (random.pick([sender.end, receiver.acknowledged, (receiver.acknowledged + receiver.window) | 0,
          (sender.end - receiver.window) | 0]) + near()) | 0
        const ack = (random.pick([receiver.end, sender.acknowledged, (receiver.end - sender.window) | 0]) + near()) | 0
        const length = random.pick([0, 0, 1, 1460, random.below(65536)])
        const window = random.below(65536)
        const before = arena.u8.slice(fast.o, fast.o + trackState.bytes)
        const done = trackEstablished(fast.o + SIDES, fast.scales, direction, sequence, ack, window, length)
        const outcome = tracker.track(slow, direction, 16, sequence, ack, window, length, -1)
        assert.equal(done, outcome === TcpOutcome.valid)
        const after = arena.u8.slice(fast.o, fast.o + trackState.bytes)
        assert.deepEqual(after, done ? arena.u8.slice(slow.o, slow.o + trackState.bytes) : before)
        if (done) taken++
      }
    }
    assert.ok(taken > 5000, `${taken} taken`)
  })
})

describe('valid connections', () => {
  const kinds = [['clean', 1], ['lossy', 1000], ['with tiny windows', 2000], ['with large windows', 3000]] as const
  for (const [name, base] of kinds) {
    it(`are never called invalid: ${name}`, () => {
      const reached = new Set<string>()
      for (let seed = base; seed < base + 120; seed++) {
        const tracker = new TcpTracker({ midStream: false, windowCheck: true, followsInvalid: false })
        const track = freshTrack()
        const random = new Random(seed)
        const connection = new SimulatedConnection(random, {
          loss: base === 1 ? 0 : random.fraction() * 0.2,
          jitter: base === 1 ? 0 : random.below(40),
          bufferBytes: base === 2000 ? 200 + random.below(2000) : base === 3000 ? 200_000 + random.below(2_000_000)
            : 4000 + random.below(100_000),
          fastOpen: random.chance(0.2),
          simultaneous: random.chance(0.15),
        })
        const log: string[] = []
        connection.run((segment) => {
          const { direction, flags, sequence, acknowledgement, window, length, scale } = segment
          const outcome = tracker.track(track, direction, flags, sequence, acknowledgement, window, length, scale)
          log.push(`${direction === 0 ? '>' : '<'} ${flags} ${sequence >>> 0} ${acknowledgement >>> 0} +${length} ` +
            `w=${window} ${tcpState.names[track.tcp]} ${tcpOutcome.names[outcome]}`)
          assert.ok(outcome <= TcpOutcome.challenge, `seed ${seed}:\n${log.slice(-30).join('\n')}`)
          reached.add(tcpState.names[track.tcp])
        })
        assert.equal(tcpState.names[track.tcp], 'time-wait', `seed ${seed}:\n${log.slice(-10).join('\n')}`)
      }
      for (const state of ['syn-sent', 'syn-received', 'established', 'fin-wait', 'last-ack', 'time-wait']) {
        assert.ok(reached.has(state), `${state} was reached`)
      }
    })
  }
})
