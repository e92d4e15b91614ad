// Sharing out a command's work: the one place that decides which part of it a thread does.

/**
 * First unit of thread ith of nth when `total` units (rows, groups, columns, heads) are shared; it ends where the next one's begins.
 * Shares differ by at most one unit, and who computes a unit never changes its bits.
 */
// @ts-ignore: decorator
@inline export function share(total: usize, ith: usize, nth: usize): usize {
  return total / nth * ith + min<usize>(ith, total % nth);
}
