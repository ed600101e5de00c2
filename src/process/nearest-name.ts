/**
 * "Did you mean": the known name that a mistyped one most likely stands for. Distance is that of Damerau and
 * Levenshtein (insert, delete, replace, swap of neighbours), case ignored; nothing is suggested for what is too far
 * from every name.
 */

/** The most edits that are taken for a slip, by the length of what was typed. */
function editsAllowed(length: number): number {
  return length <= 2 ? 1 : length <= 5 ? 2 : 3
}

/** The nearest of `names` to `typed`, or undefined if none is near. */
export function nearestName(typed: string, names: Iterable<string>): string | undefined {
  const wanted = typed.toLowerCase()
  let best: string | undefined
  let bestEdits = editsAllowed(wanted.length) + 1
  for (const name of names) {
    const edits = editDistance(wanted, name.toLowerCase())
    // A name that is all replaced is no slip of the finger.
    if (edits < bestEdits && edits < Math.max(wanted.length, name.length)) {
      best = name
      bestEdits = edits
    }
  }
  return best
}

/** The rows of the table that the next one is made from are kept, no more. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const replace = (last[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      let edits = Math.min(replace, (last[j] as number) + 1, (row[j - 1] as number) + 1)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        edits = Math.min(edits, (beforeLast[j - 2] as number) + 1)
      }
      row.push(edits)
    }
    beforeLast = last
    last = row
  }
  return last[b.length] as number
}
