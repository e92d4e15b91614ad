export function outside(repository: string, scratch: string): string;
