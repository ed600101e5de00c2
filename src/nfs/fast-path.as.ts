/**
 * The fast path of a chain of built-in network functions, in AssemblyScript: runs the packets of a batch one after the other
 * through flow actor and chain, as long as each NF can do its part here, and stops at the first packet that needs more.
 *
 * Each NF's part is a file beside the NF and does what its `processPacket` does, or says that it cannot and has changed
 * nothing; then TypeScript goes on with this packet at this NF, and comes back with the packet behind it. So the order of
 * everything is that of the engine without kernel, which is the twin. The program is written by nf/fast-path.ts:
 *
 *     │ outputs │ stopped at │ - │ - │  then for each part, 16 bytes:  │ state offset, or 0 │ counters │ parameter │ - │
 *
 * The other numbers are those of packet/descriptor.ts and flow/flow-record.ts.
 */

import { firewall } from './firewall/firewall.as'
import { http } from './http/http.as'
import { monitor } from './monitor/monitor.as'

// Parts, in the order in which a chain must have them; see fast-path-part.ts.
const FIREWALL: i32 = 1
const HTTP: i32 = 2

// In the program.
const OUTPUTS: usize = 0
const STOPPED: usize = 4
const MONITOR_STEP: usize = 16
const FIREWALL_STEP: usize = 32
const HTTP_STEP: usize = 48

// In a descriptor.
const META: usize = 24
const RESULT: usize = 28
const RECORD: usize = 36
const TIME: usize = 40
const KEY: usize = 48
const WIRE_LENGTH: usize = 92
const DESCRIPTOR_BYTES: i32 = 128
const IPV6: i32 = 1 << 17
/** FIN, SYN and RST in the meta word. */
const TCP_CHANGES: i32 = 0x700

// In a flow record.
const STATE: usize = 44
const LAST_SEEN: usize = 48
const PACKETS: usize = 64
const BYTES: usize = 72
const ACTIVE: i32 = 1

/**
 * @param d offset of the first descriptor, `end` behind the last
 * @param guessed not 0 if the record words are guesses, so that keys must be compared
 * @returns offset of the descriptor it stopped at, or `end`. The program says at which part (-1: before the flow actor), and
 * where outputs go on
 */
export function fastPath(d: i32, end: i32, program: i32, guessed: i32): i32 {
  const monitorState = load<i32>(program, MONITOR_STEP)
  const monitorCounters = load<i32>(program, MONITOR_STEP + 4)
  const firewallState = load<i32>(program, FIREWALL_STEP)
  const tracks = load<i32>(program, FIREWALL_STEP + 8)
  const httpState = load<i32>(program, HTTP_STEP)
  const httpCounters = load<i32>(program, HTTP_STEP + 4)
  const httpParameters = load<i32>(program, HTTP_STEP + 8)
  let outputs = load<i32>(program, OUTPUTS)
  let stopped = -1
  for (; d < end; d += DESCRIPTOR_BYTES) {
    const record = load<i32>(d, RECORD)
    if (record == 0 || load<i32>(d, RESULT) != 0) break
    const meta = load<i32>(d, META)
    if (guessed != 0 && ((meta & IPV6) != 0 || load<i64>(record) != load<i64>(d, KEY) ||
      load<i32>(record, 8) != load<i32>(d, KEY + 8) || load<i32>(record, 12) != load<i32>(d, KEY + 12) ||
      load<i32>(record, 28) != load<i32>(d, KEY + 28))) break
    const life = load<i32>(record, STATE)
    if ((life & 0xffff) != ACTIVE || (meta & TCP_CHANGES) != 0) break
    store<f64>(record, load<f64>(d, TIME), LAST_SEEN)
    store<f64>(record, load<f64>(record, PACKETS) + 1, PACKETS)
    store<f64>(record, load<f64>(record, BYTES) + <f64>load<i32>(d, WIRE_LENGTH), BYTES)
    const direction = ((meta >>> 16) ^ (life >>> 16)) & 1
    if (monitorState != 0) monitor(d, meta, direction, record + monitorState, monitorCounters)
    if (firewallState != 0 && !firewall(d, meta, direction, record + firewallState, tracks)) {
      stopped = FIREWALL
      break
    }
    if (httpState != 0 && !http(d, record, meta, direction, record + httpState, httpCounters, httpParameters)) {
      stopped = HTTP
      break
    }
    store<i32>(outputs, d >> 2)
    outputs += 4
  }
  store<i32>(program, outputs, OUTPUTS)
  store<i32>(program, stopped, STOPPED)
  return d
}
