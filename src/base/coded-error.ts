/**
 * Errors that a person can act on. Every one has a stable `NF_...` code from the table below, and says in one line what
 * is wrong, where, and how to mend it. Programs match on the code, never on the text.
 */

/** Every error code, with what it means. The documentation is made from this table. */
export const errorCodes = {
  NF_USAGE: 'The command line is wrong: an unknown option, a missing or malformed argument.',
  NF_FILE_NOT_FOUND: 'A file that was named does not exist.',
  NF_FILE_UNREADABLE: 'A file exists but cannot be read (permissions, a directory, an I/O error).',
  NF_FILE_UNWRITABLE: 'An output file cannot be created or written (permissions, missing folder, full disk).',
  NF_CAPTURE_EMPTY: 'A capture file has no bytes at all.',
  NF_CAPTURE_FORMAT: 'A file is not a pcap or pcapng capture, or its header is damaged.',
  NF_CAPTURE_LINK_TYPE: 'A capture has a link type that NFactor cannot read.',
  NF_CONFIG_SYNTAX: 'A configuration file is not valid YAML or JSON.',
  NF_CONFIG_INVALID: 'A configuration has an unknown key, a wrong type or a value out of range.',
  NF_NF_UNKNOWN: 'A chain names a network function that is neither built in nor a file or package.',
  NF_NF_LOAD: 'A network function file does not compile, does not load, or does not export a definition.',
  NF_NF_INVALID: 'A network function definition breaks a rule of the SDK (name, state, counters, sizes).',
  NF_NF_CONTRACT: 'A network function failed the contract suite.',
  NF_LIMIT: 'A configured limit cannot be met on this machine (memory, sizes).',
  NF_SNAPSHOT: 'A flow snapshot is damaged, or belongs to a chain that this one cannot take flows from.',
  NF_PORT_UNSUPPORTED: 'A port needs something that this system does not have (Linux with glibc, a feature of the kernel).',
  NF_PORT_PRIVILEGE: 'A port needs a privilege that this process does not have.',
  NF_PORT_INTERFACE: 'A network interface that was named does not exist, is not an Ethernet one, or went away.',
  NF_PORT_BUSY: 'What a port would have for itself (a socket, a device, the frames of an interface) belongs to another process.',
  NF_PORT_FAILED: 'A port could not be opened for another reason, which the message says.',
  NF_STORE_CONTENT: 'The controllers\' store holds something that this version of NFactor did not write.',
  NF_STORE_BUSY: 'The controllers\' store is locked by another process, for longer than it is waited for.',
  NF_STORE_FULL: 'The controllers\' store has no room: its disk, or the quota of etcd.',
  NF_STORE_CORRUPT: 'The file of the controllers\' store is damaged.',
  NF_STORE_FOREIGN: 'A file that should be the controllers\' store is something else.',
  NF_STORE_VERSION: 'The controllers\' store is in a format, or served by a program, of a version that this one cannot use.',
  NF_STORE_UNREACHABLE: 'No endpoint of the controllers\' store answers.',
  NF_STORE_DENIED: 'The controllers\' store refuses this user, password or certificate.',
  NF_STORE_FAILED: 'The controllers\' store cannot be used for another reason, which the message says.',
  NF_CLUSTER: 'A command names a node that the cluster does not have, or that cannot do this now.',
  NF_CLUSTER_RUNNING: 'A cluster of this name is running already.',
  NF_CLUSTER_NOT_RUNNING: 'No cluster of this name is running.',
  NF_CLUSTER_START: 'A cluster could not be started; the message says which node failed, and how.',
  NF_NOT_LEADER: 'A controller was asked for what only the leading one can do.',
  NF_MACHINE: 'A machine of a cluster cannot be reached, or does not take this cluster.',
  NF_NODE_GONE: 'A process of a cluster does not answer, or has ended.',
  NF_RPC_TOKEN: 'A call without the token that its listener demands, or with a wrong one.',
  NF_RPC_LIMIT: 'A call that is larger than its listener takes, or one too many at a time.',
  NF_CONTAINER_ENGINE: 'No container engine answers at the socket that was named.',
  NF_CONTAINER_DENIED: 'This user may not use the container engine.',
  NF_CONTAINER_IMAGE: 'The container engine does not have an image, or cannot make it.',
  NF_CONTAINER_FAILED: 'The container engine refuses or fails; the message says what it said.',
  NF_EXISTS: 'A file that would be created exists already.',
  NF_BENCH: 'A benchmark could not be run, or its variants disagree.',
  NF_INTERNAL: 'A defect of NFactor itself.',
} as const

export type ErrorCode = keyof typeof errorCodes

/** An operating error: bad input, a missing file, a refused command. Shown as one line, without a stack. */
export class CodedError extends Error {
  override readonly name = 'CodedError'
  readonly code: ErrorCode
  /** How to mend it, one sentence; empty if the message says it all. */
  readonly mend: string

  /**
   * @param message what is wrong and where (file, line, option), without a trailing full stop
   */
  constructor(code: ErrorCode, message: string, mend = '', options?: ErrorOptions) {
    super(message, options)
    this.code = code
    this.mend = mend
  }

  /** The one line that a person sees. */
  toLine(): string {
    return `${this.code}: ${this.message}${this.mend === '' ? '' : `. ${this.mend}`}`
  }
}
