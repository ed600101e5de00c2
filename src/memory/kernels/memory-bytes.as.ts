/**
 * Size of the memory, for kernels that load whole vectors and must not do so across its end.
 */

/** Size of the memory in bytes; below 2 GiB, so it fits a signed integer. */
// @ts-ignore: decorator
@inline
export function memoryBytes(): i32 {
  return memory.size() << 16
}
