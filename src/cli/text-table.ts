/**
 * Columns of text, aligned: for terminals, without lines and frames.
 */

export interface TableColumn {
  readonly align?: 'left' | 'right'
}

/** Lines of the rows, each column as wide as its longest cell, two spaces between columns, nothing behind the last. */
export function tableLines(
  rows: readonly (readonly string[])[], columns: readonly TableColumn[], indent = '  ',
): string[] {
  const widths = columns.map((_, index) => Math.max(0, ...rows.map((row) => (row[index] ?? '').length)))
  return rows.map((row) => {
    const cells = columns.map(({ align }, index) => {
      const cell = row[index] ?? ''
      const width = widths[index] as number
      if (align === 'right') return cell.padStart(width)
      return index === columns.length - 1 ? cell : cell.padEnd(width)
    })
    return `${indent}${cells.join('  ')}`.trimEnd()
  })
}
