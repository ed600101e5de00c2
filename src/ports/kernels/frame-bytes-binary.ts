/**
 * The compiled kernels, in base64. Made by scripts/build-kernels.ts from the `*.as.ts` files of this folder; not to be edited.
 */

export const frameBytesBinary =
  'AGFzbQEAAAABDQJgAn9/AX9gA39/fwACEgEDZW52Bm1lbW9yeQIDAf//AQMDAgABBxgCCWNvcHlCeXRlcwABCHN1bUJ5dGVzAAAK9gEC5gECAX4BfyAA' +
  'IAFqIQMgACABQWBxaiEBA0AgACABSARAIAIgADUCDCAANQIIIAA1AgAgADUCBHx8fHwgADUCHCAANQIYIAA1AhAgADUCFHx8fHwhAiAAQSBqIQAMAQsL' +
  'A0AgAEECaiIBIANMBEAgAiAAMwEAfCECIAEhAAwBCwsgACADSARAIAIgADEAAHwhAgsgAkL/////D4MgAkIgiHwiAkL/////D4MgAkIgiHwiAkL//wOD' +
  'IAJCEIh8IgJC//8DgyACQhCIfCICQv//A4MgAkIQiHynIgBB/wFxQQh0IABBCHVyCwwAIAAgASAC/AoAAAs='
