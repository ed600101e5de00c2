import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Random } from '../../base/random.ts'
import { judgeRun, studyFrames, type CaptureStudy } from './capture-study.ts'
import { fabricateRun, printRun, type FabricatedRun } from './fabricated-run.ts'
import { parseRunOutput } from './run-output.ts'
import { translateExpectation } from './suite-expectations.ts'
import { captureConversations, cutAtRandom, cutWhole } from './tcp-conversation.ts'
import { sampleConversations } from './sample-conversations.ts'

type Json = Record<string, unknown>

const study = studyFrames('sample', captureConversations(sampleConversations(), cutWhole))

function judge(subject: CaptureStudy, run: FabricatedRun): string[] {
  const { document, flows, events } = printRun(run)
  return judgeRun(subject, parseRunOutput(document, flows, events))
}

function faultless(subject: CaptureStudy = study): FabricatedRun {
  return fabricateRun(subject.frames.length, subject.census, subject.expected.permitted)
}

/** Breaks one thing in a faultless run. */
function broken(change: (run: FabricatedRun) => void): string[] {
  const run = faultless()
  change(run)
  return judge(study, run)
}

describe('judging a run', () => {
  test('the sample has what the comparisons need', () => {
    assert.ok(study.census.entries.size >= 4)
    assert.ok(study.expected.required.filter(message => message.kind === 'request').length >= 8)
    assert.ok(study.expected.required.filter(message => message.kind === 'response').length >= 8)
  })

  test('a faultless run passes, also of a capture cut in other ways', () => {
    assert.deepEqual(judge(study, faultless()), [])
    const other = studyFrames('other', captureConversations(sampleConversations(), cutAtRandom(new Random(7))))
    assert.deepEqual(judge(other, faultless(other)), [])
  })

  const faults: Record<string, [(run: FabricatedRun) => void, RegExp]> = {
    'a packet lost': [run => {
      run.document['packets']!['forwarded'] = study.frames.length - 1
    }, /forwarded \+ dropped/],
    'a packet never received': [run => {
      run.document['packets']!['received'] = study.frames.length - 1
      run.document['packets']!['forwarded'] = study.frames.length - 1
    }, /packets\.received/],
    'a packet made out of nothing': [run => { run.document['packets']!['emitted'] = 1 }, /forwarded \+ dropped/],
    'a drop without a reason': [run => {
      run.document['packets']!['forwarded'] = study.frames.length - 1
      run.document['packets']!['dropped'] = 1
    }, /sum of dropReasons/],
    'a network function that threw': [run => {
      run.document['packets']!['forwarded'] = study.frames.length - 1
      run.document['packets']!['dropped'] = 1
      run.document['dropReasons']!['nf-error'] = 1
    }, /nf-error/],
    'a good packet taken for malformed': [run => {
      run.document['packets']!['forwarded'] = study.frames.length - 1
      run.document['packets']!['dropped'] = 1
      run.document['dropReasons']!['malformed-tcp'] = 1
    }, /malformed/],
    'a flow too few': [run => { run.flows.pop() }, /no flow/],
    'a flow that is not there': [run => {
      const flow = structuredClone(run.flows[0]) as Json
      const key = flow['key'] as Record<string, Json>
      key['a']!['port'] = 4242
      run.flows.push(flow)
    }, /not in the capture/],
    'a flow with a packet too many': [run => {
      run.flows[0]!['packets'] = Number(run.flows[0]!['packets']) + 1
    }, /packets instead of/],
    'a flow with the wrong VLAN': [run => { (run.flows[0]!['key'] as Json)['vlan'] = 7 }, /VLAN 7/],
    'a flow opened by the other side': [run => {
      run.flows[0]!['opener'] = run.flows[0]!['opener'] === 'a' ? 'b' : 'a'
    }, /opened as/],
    'a request missing': [run => {
      run.events.splice(run.events.findIndex(event => event['event'] === 'request'), 1)
    }, /missing/],
    'a response missing': [run => {
      run.events.splice(run.events.findLastIndex(event => event['event'] === 'response'), 1)
    }, /missing/],
    'a request twice': [run => { run.events.unshift(structuredClone(run.events[0]!)) }, /unexpected/],
    'another method': [run => { run.events[0]!['method'] = 'TRACE' }, /unexpected.*TRACE/],
    'a cut URI': [run => { run.events[0]!['uri'] = String(run.events[0]!['uri']).slice(0, -1) }, /unexpected/],
    'another host': [run => { run.events[0]!['host'] = 'elsewhere' }, /unexpected.*elsewhere/],
    'another version': [run => { run.events[0]!['version'] = 'HTTP/1.0' }, /unexpected.*1\.0/],
    'another status': [run => {
      run.events.find(event => event['event'] === 'response')!['status'] = 599
    }, /unexpected.*599/],
    'a message in the wrong direction': [run => {
      const flow = run.events[0]!['flow'] as Json
      run.events[0]!['flow'] = {
        ...flow, source: flow['destination'], sourcePort: flow['destinationPort'],
        destination: flow['source'], destinationPort: flow['sourcePort'],
      }
    }, /unexpected/],
    'messages out of order': [run => { run.events.splice(0, 2, run.events[1]!, run.events[0]!) }, /unexpected|missing/],
    'a counter that does not count': [run => {
      run.document['nfs']!['http'] = { requests: 0, responses: 0 }
    }, /nfs\.http/],
  }
  for (const [name, [change, complaint]] of Object.entries(faults)) {
    test(`notices ${name}`, () => {
      const problems = broken(change)
      assert.match(problems.join('\n'), complaint)
    })
  }

  test('sums several flows of one tuple', () => {
    assert.deepEqual(broken(run => {
      const first = run.flows[0]!
      const packets = Number(first['packets'])
      run.flows.push({ ...first, packets: packets - 1 })
      first['packets'] = 1
      const counts = run.document['flows'] as Record<string, number>
      counts['created']!++
      counts['tcp']!++
    }), [])
  })

  test('refuses outputs that lack what is compared', () => {
    const { document, flows, events } = printRun(faultless())
    assert.throws(() => parseRunOutput('{}', flows, events), /packets\.received/)
    const [otherFlows, otherEvents] = [flows.replaceAll('"packets":', '"n":'), events.replaceAll('"uri":', '"path":')]
    assert.throws(() => parseRunOutput(document, otherFlows, events), /packets is no number/)
    assert.throws(() => parseRunOutput(document, flows, otherEvents), /uri is no text/)
  })
})

describe("a suite's expectations", () => {
  const run = parseRunOutput(...Object.values(printRun(faultless())) as [string, string, string])
  const url = run.messages.find(message => message.kind === 'request')?.uri

  test('transactions are looked up by URL and status', () => {
    const ask = (count: number, match: Json): string | null => {
      const check = translateExpectation({ count, match: { event_type: 'http', ...match } })
      assert.ok(check !== null)
      return check(run)
    }
    assert.equal(ask(1, { 'http.url': url }), null)
    assert.notEqual(ask(2, { 'http.url': url }), null)
    assert.notEqual(ask(1, { 'http.url': '/nowhere' }), null)
    assert.equal(ask(0, { 'http.url': '/nowhere' }), null)
    assert.equal(ask(1, { 'http.url': url, 'http.status': 200, 'http.length': 3 }), null)
    assert.notEqual(ask(1, { 'http.url': url, 'http.status': 599 }), null)
    assert.equal(ask(run.messages.filter(message => message.kind === 'request').length, {}), null)
    assert.notEqual(ask(1, {}), null)
  })

  test('flows are looked up by endpoints and packets', () => {
    const flow = run.flows[0]!
    const port = Number(/:(1\d{4})(?: |$)/.exec(flow.tuple)?.[1])
    const ask = (match: Json): string | null =>
      translateExpectation({ count: 1, match: { event_type: 'flow', proto: 'TCP', ...match } })!(run)
    assert.equal(ask({ src_port: port }), null)
    assert.notEqual(ask({ src_port: 1 }), null)
    assert.equal(ask({ src_port: port, 'flow.pkts_toserver': flow.packets, 'flow.pkts_toclient': 0 }), null)
    assert.notEqual(ask({ src_port: port, 'flow.pkts_toserver': flow.packets, 'flow.pkts_toclient': 1 }), null)
  })

  test('what NFactor does not report is left out', () => {
    assert.equal(translateExpectation({ count: 1, match: { event_type: 'alert', 'alert.signature_id': 1 } }), null)
    assert.equal(translateExpectation({ count: 1, match: { event_type: 'http', 'http.unheard_of': 1 } }), null)
  })
})
