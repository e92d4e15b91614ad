/** See browser.mjs; of puppeteer what is used. */
export interface Page {
  goto(url: string): Promise<unknown>;
  evaluate<T>(program: string): Promise<T>;
  evaluateOnNewDocument(program: string): Promise<unknown>;
  workers(): readonly object[];
  close(): Promise<void>;
}
export interface Browser {
  newPage(): Promise<Page>;
  process(): { readonly pid?: number | undefined } | null;
  close(): Promise<void>;
  installExtension?(path: string): Promise<string>;
}
export function openBrowser(binary: string, extensions?: readonly string[]): Promise<Browser>;
export function visit(
  browser: Browser,
  url: string,
  timeoutMs: number,
): Promise<{ readonly text: string; readonly said: readonly string[]; readonly workers: number }>;
