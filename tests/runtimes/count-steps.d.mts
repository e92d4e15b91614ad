/** See count-steps.mjs. */
export const WORKER_FILES: readonly string[];
export function withCount(name: string, text: string): string;
export function shareCount(): Promise<{ count(): number; end(): void }>;
