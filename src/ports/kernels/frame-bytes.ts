/** Copying and summing bytes of frames: see memory/kernels/frame-bytes.ts. */

export { loadFrameBytes, type FrameBytes } from '../../memory/kernels/frame-bytes.ts'
