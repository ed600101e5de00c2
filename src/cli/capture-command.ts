/**
 * `nfactor capture`: what ports of a running node receive and send, into a pcapng file or to standard output.
 */

import { CodedError } from '../base/coded-error.ts'
import { CaptureFileWriter } from '../ports/capture-file-writer.ts'
import { compileFrameWords } from '../ports/frame-words.ts'
import type { CaptureTaken } from '../process/frame-recorder.ts'
import { WatchClient, type StartedWatch } from '../process/watch-client.ts'
import { LinkType } from '../wire/link-type.ts'
import { clusterOf, type ClusterCommandOptions } from './cluster-commands.ts'
import { ExitStatus } from './exit-status.ts'
import { interruption } from './interruption.ts'
import { countOf } from './number-text.ts'

export interface CaptureOptions extends ClusterCommandOptions {
  readonly port?: readonly string[]
  readonly filter?: readonly string[]
  readonly packets: number
  readonly bytes: number
  readonly seconds: number
  readonly out?: string
}

const SNAP_BYTES = 262_144

export async function captureCommand(name: string, options: CaptureOptions): Promise<number> {
  const { out = `${name}.pcapng`, packets, bytes, seconds, filter = [] } = options
  const isPiped = out === '-'
  compileFrameWords(filter)
  if (!isPiped && !out.endsWith('.pcapng')) throw new CodedError('NF_USAGE', `${out} is no name of a pcapng file`, 'End it in .pcapng')
  const client = await WatchClient.open(clusterOf(options))
  const node = client.nodeNamed(name)
  const interrupted = interruption()
  let writer: CaptureFileWriter | undefined
  try {
    const watch = await client.start(node, { kind: 'capture', filter, port: portOf(client, options.port), packets, bytes })
    const file = writer = new CaptureFileWriter(isPiped ? 'standard output' : out, { format: 'pcapng', ...isPiped && { fd: 1 } })
    const names = watch.ports.map((port) => portName(client, port))
    names.forEach((text, index) => { file.interfaceAdded(index, LinkType.Ethernet, SNAP_BYTES, true, text) })
    file.flush()
    const total = { frames: 0, bytes: 0, lost: 0 }
    await client.run<CaptureTaken>(seconds, interrupted.signal, (_, taken) => {
      total.lost = taken.lost
      for (const { time, port, isOut, bytes: text, comment } of taken.frames) {
        const frame = Buffer.from(text, 'base64')
        const whole = Math.floor(time / 1e6)
        file.packet(frame, 0, frame.length, frame.length, whole, Math.floor((time - whole * 1e6) * 1000), port, { isOut, comment })
        total.frames++
        total.bytes += frame.length
      }
      file.flush()
    }, () => false)
    const lost = total.lost === 0 ? '' : `, ${total.lost} lost: they came faster than they were taken`
    const line = `${countOf(total.frames, 'frame')} of ${node.name} (${names.join(', ')}) in ${isPiped ? 'standard output' : out}${lost}\n`
    if (isPiped) process.stderr.write(line)
    else process.stdout.write(options.json === true ? `${JSON.stringify({ node: node.name, ports: names, file: out, ...total })}\n` : line)
    return ExitStatus.ok
  } finally {
    interrupted.end()
    writer?.close()
    await client.close()
  }
}

/** `external`, `bypass`, or the number of the node behind a link. */
function portOf(client: WatchClient, words: readonly string[] | undefined): string | number | undefined {
  if (words === undefined) return undefined
  const [kind, peer, ...rest] = words.flatMap((word) => word.split(/\s+/))
  if ((kind === 'external' || kind === 'bypass') && peer === undefined) return kind
  if (kind === 'link' && peer !== undefined && rest.length === 0) return client.nodeNamed(peer).id
  throw new CodedError('NF_USAGE', `${JSON.stringify(words.join(' '))} is no port`, 'Say external, bypass, or link and the node behind it')
}

function portName(client: WatchClient, { kind, peer }: StartedWatch['ports'][number]): string {
  return kind === 'link' ? `link ${client.nameOf(peer)}` : kind
}
