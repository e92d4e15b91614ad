/** See browser.mjs. */
export interface Browser {
  close(): Promise<void>;
  installExtension?(path: string): Promise<string>;
}
export function openBrowser(binary: string, extensions?: readonly string[]): Promise<Browser>;
export function visit(
  browser: Browser,
  url: string,
  timeoutMs: number,
): Promise<{ readonly text: string; readonly said: readonly string[] }>;
