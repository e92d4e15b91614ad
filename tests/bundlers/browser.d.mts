/** See browser.mjs; of puppeteer what is used. */
export interface Page {
  goto(url: string): Promise<unknown>;
  evaluate<T>(program: string): Promise<T>;
  /** Waits until the expression is true. */
  waitForFunction(expression: string, options?: { readonly timeout?: number }): Promise<unknown>;
  type(selector: string, text: string): Promise<void>;
  click(selector: string): Promise<void>;
  setViewport(size: { readonly width: number; readonly height: number }): Promise<void>;
  screenshot(options: { readonly path: string }): Promise<unknown>;
  evaluateOnNewDocument(program: string): Promise<unknown>;
  workers(): readonly { url(): string; evaluate<T>(program: string): Promise<T> }[];
  /** The browser's own protocol. */
  createCDPSession(): Promise<{ send(method: string): Promise<unknown> }>;
  close(): Promise<void>;
}
export interface Browser {
  newPage(): Promise<Page>;
  process(): { readonly pid?: number | undefined } | null;
  close(): Promise<void>;
  installExtension?(path: string): Promise<string>;
}
export function openBrowser(binary: string, extensions?: readonly string[], userDataDir?: string): Promise<Browser>;
/** Listens to what a page says on the console, what fails in it and what it cannot fetch. @returns a list that grows */
export function listen(page: Page): readonly string[];
export function visit(
  browser: Browser,
  url: string,
  timeoutMs: number,
): Promise<{ readonly text: string; readonly said: readonly string[]; readonly workers: number }>;
