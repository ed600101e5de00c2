/** What a session counts. Frames that are ignored are counted by reason, each once. */

export interface SessionStatistics {
  framesSent: number
  framesReceived: number
  /** Bytes of the stream in frames sent, repetitions included, and in frames received. */
  bytesSent: number
  bytesReceived: number
  messagesSent: number
  messagesReceived: number
  /** Frames sent again; times that an acknowledgement did not come in time. */
  retransmitted: number
  timeouts: number
  /** Frames of which everything was there already; frames that came before their turn. */
  duplicates: number
  early: number
  /** Ignored: cut short; not ours; of another version; of another cluster; between other nodes; of the other kind of session. */
  short: number
  otherMagic: number
  otherVersion: number
  otherCluster: number
  otherNode: number
  otherStream: number
  /** Ignored: from or to another life than the configuration means. */
  stale: number
  /** Ignored: wrong checksum; right checksum but lengths that cannot be; no room in the window. */
  corrupted: number
  malformed: number
  beyondWindow: number
  /** Times that there was no ordinary room for a message. */
  refused: number
  /** Messages lost because a silent peer had left no room in the reserve. */
  lost: number
}

export function createSessionStatistics(): SessionStatistics {
  return {
    framesSent: 0, framesReceived: 0, bytesSent: 0, bytesReceived: 0, messagesSent: 0, messagesReceived: 0, retransmitted: 0,
    timeouts: 0, duplicates: 0, early: 0, short: 0, otherMagic: 0, otherVersion: 0, otherCluster: 0, otherNode: 0, otherStream: 0,
    stale: 0, corrupted: 0, malformed: 0, beyondWindow: 0, refused: 0, lost: 0,
  }
}
