// The checksum of a packed image, slow and obvious: sixteen chains of 32 bits. Nothing here imports from src/ or assembly/.

/** @param pieces of a multiple of 16 bytes each; a piece that ends between two multiples of 64 continues with the first chain in the next */
export function imageChecksum(pieces: readonly Uint8Array[]): string {
  const chains = new Uint32Array(16);
  for (const piece of pieces) {
    const view = new DataView(piece.buffer, piece.byteOffset, piece.length);
    for (let i = 0; i < piece.length / 4; i++) {
      const sum = ((chains[i % 16] ?? 0) + Math.imul(view.getUint32(4 * i, true), 2246822519)) >>> 0;
      chains[i % 16] = Math.imul((sum << 13) | (sum >>> 19), 2654435761);
    }
  }
  return Array.from(chains, (word) => word.toString(16).padStart(8, "0")).join("");
}
