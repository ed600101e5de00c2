/**
 * Errors of calls: a CodedError of the one side is a CodedError of the other. On the way it is a ConnectError, whose code tells any
 * client of Connect or gRPC the kind of failure, with an `nfactor.v1.ErrorDetail` that has the `NF_` code, the message and how to mend it.
 */

import { Code, ConnectError } from '@connectrpc/connect'
import { CodedError, errorCodes, type ErrorCode } from '../base/coded-error.ts'
import { ErrorDetailSchema } from './generated/nfactor/v1/error_pb.ts'

/** What an error is to others. Codes that are not here are failed preconditions: the cluster cannot do this as it is. */
const codes: Partial<Record<ErrorCode, Code>> = {
  NF_USAGE: Code.InvalidArgument,
  NF_CONFIG_SYNTAX: Code.InvalidArgument,
  NF_CONFIG_INVALID: Code.InvalidArgument,
  NF_FILE_NOT_FOUND: Code.NotFound,
  NF_NF_UNKNOWN: Code.NotFound,
  NF_PORT_PRIVILEGE: Code.PermissionDenied,
  NF_PORT_UNSUPPORTED: Code.Unimplemented,
  NF_LIMIT: Code.ResourceExhausted,
  NF_RPC_LIMIT: Code.ResourceExhausted,
  NF_RPC_TOKEN: Code.Unauthenticated,
  NF_NODE_GONE: Code.Unavailable,
  NF_NOT_LEADER: Code.Unavailable,
  NF_EXISTS: Code.AlreadyExists,
  NF_CLUSTER_RUNNING: Code.AlreadyExists,
  NF_INTERNAL: Code.Internal,
}

/** What errors without our detail are to us: those of servers that are not NFactor, and what Connect itself refuses. */
const meanings: Partial<Record<Code, ErrorCode>> = {
  [Code.Unauthenticated]: 'NF_RPC_TOKEN',
  [Code.PermissionDenied]: 'NF_RPC_TOKEN',
  [Code.ResourceExhausted]: 'NF_RPC_LIMIT',
  [Code.InvalidArgument]: 'NF_USAGE',
  [Code.Unimplemented]: 'NF_USAGE',
  [Code.NotFound]: 'NF_CLUSTER',
  [Code.FailedPrecondition]: 'NF_CLUSTER',
  [Code.AlreadyExists]: 'NF_EXISTS',
  [Code.Internal]: 'NF_INTERNAL',
  [Code.Unknown]: 'NF_INTERNAL',
}

export function connectErrorOf(error: CodedError, connectCode?: Code): ConnectError {
  const { code, message, mend } = error
  return new ConnectError(message, connectCode ?? codes[code] ?? Code.FailedPrecondition, undefined,
    [{ desc: ErrorDetailSchema, value: { code, message, mend } }], error)
}

/**
 * What a method has thrown, for its caller. What is no CodedError is a defect: the caller gets its message, never its stack.
 *
 * @param onDefect is told of such
 */
export function connectErrorFrom(reason: unknown, onDefect: (reason: unknown) => void): ConnectError {
  if (reason instanceof ConnectError) return reason
  if (reason instanceof CodedError) return connectErrorOf(reason)
  onDefect(reason)
  return connectErrorOf(new CodedError('NF_INTERNAL', reason instanceof Error ? reason.message : String(reason)))
}

/**
 * What has come of a call, for the caller of our client.
 *
 * @param peer who was called, for the message
 */
export function codedErrorFrom(reason: unknown, peer: string): CodedError {
  if (reason instanceof CodedError) return reason
  const error = ConnectError.from(reason)
  // Ours, that Connect has wrapped.
  if (error.cause instanceof CodedError) return error.cause
  for (const { code, message, mend } of error.findDetails(ErrorDetailSchema)) {
    return new CodedError(Object.hasOwn(errorCodes, code) ? code as ErrorCode : 'NF_INTERNAL', message, mend, { cause: error })
  }
  // An answer has headers. An error without any was made on this side, because there was no answer or only a part of one.
  const isAnswer = !error.metadata.keys().next().done
  const code = isAnswer ? meanings[error.code] ?? 'NF_NODE_GONE' : error.code === Code.ResourceExhausted ? 'NF_RPC_LIMIT' : 'NF_NODE_GONE'
  return new CodedError(code, `${peer}: ${error.rawMessage}`, '', { cause: error })
}
