// Leaves of the declaration files what a program can name or be given: what the entries export, and what that refers to. The rest nobody can import.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript-6"; // 7 is no library yet

/** One declaration file: what it declares, brings in and hands on, by name; and which of its statements are needed. */
class DeclarationFile {
  /** Name → statements: overloads are several. */
  declared = new Map();
  /** Name here → statement, module, name there. */
  imported = new Map();
  /** Exported name → module or undefined, name there or here. */
  exported = new Map();
  stars = [];
  needed = new Set();
  neededImports = new Set();
  neededExports = new Set();

  constructor(path) {
    this.path = path;
    this.source = ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.Latest, true);
    for (const statement of this.source.statements) this.#read(statement);
  }

  #read(statement) {
    if (ts.isImportDeclaration(statement)) {
      const { name, namedBindings } = statement.importClause ?? {};
      if (!name && !(namedBindings && ts.isNamedImports(namedBindings)))
        throw new Error(`${this.path}: expected imports by name, got ${statement.getText()}`);
      if (name) this.imported.set(name.text, { module: statement.moduleSpecifier.text, name: "default" });
      for (const e of namedBindings?.elements ?? [])
        this.imported.set(e.name.text, { module: statement.moduleSpecifier.text, name: (e.propertyName ?? e.name).text });
    } else if (ts.isExportDeclaration(statement)) {
      const module = statement.moduleSpecifier?.text;
      if (!statement.exportClause) this.stars.push(module);
      else
        for (const e of statement.exportClause.elements) this.exported.set(e.name.text, { module, name: (e.propertyName ?? e.name).text });
    } else {
      const list = ts.isVariableStatement(statement) ? statement.declarationList.declarations : [statement];
      for (const { name } of list) {
        const text = ts.isExportAssignment(statement) ? "default" : name?.text;
        if (text === undefined) throw new Error(`${this.path}: expected a declaration with a name, got ${statement.getText()}`);
        this.declared.set(text, [...(this.declared.get(text) ?? []), statement]);
      }
    }
  }

  #keeps(statement) {
    if (ts.isImportDeclaration(statement)) {
      const { name, namedBindings } = statement.importClause;
      return [name, ...(namedBindings?.elements ?? []).map((e) => e.name)].some((n) => n && this.neededImports.has(n.text));
    }
    if (!ts.isExportDeclaration(statement)) return this.needed.has(statement);
    const elements = statement.exportClause?.elements;
    return !elements?.length || elements.some((e) => this.neededExports.has(e.name.text));
  }

  /** @returns what is left of it */
  text() {
    const kept = this.source.statements.filter((statement) => this.#keeps(statement));
    return kept
      .map((statement) => {
        const clause = statement.importClause?.namedBindings ?? statement.exportClause;
        const all = clause?.elements;
        if (!all?.length) return statement.getFullText();
        const needed = ts.isImportDeclaration(statement) ? this.neededImports : this.neededExports;
        const list = all.filter((e) => needed.has(e.name.text)).map((e) => e.getText());
        const [from, to] = [clause.getStart() - statement.getFullStart(), clause.getEnd() - statement.getFullStart()];
        const text = statement.getFullText();
        return `${text.slice(0, from)}{ ${list.join(", ")} }${text.slice(to)}`;
      })
      .join("")
      .trimStart()
      .concat("\n");
  }
}

/**
 * @param folder whose declaration files are pruned, in place
 * @param entries paths of those that a program imports
 */
export function pruneTypes(folder, entries) {
  const files = new Map();
  const fileAt = (path) => {
    if (!files.has(path)) files.set(path, new DeclarationFile(path));
    return files.get(path);
  };
  /** Of a relative module; packages have their own. */
  const fileOf = (from, module) => (module?.startsWith(".") ? fileAt(join(from.path, "..", module.replace(/\.js$/, ".d.ts"))) : undefined);

  const starsOf = (file) => file.stars.map((module) => fileOf(file, module)).filter((from) => from !== undefined);

  /** Everything that a file exports. */
  const namesOf = (file) => {
    const isExported = (s) => ts.isExportAssignment(s) || s.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword);
    const own = [...file.declared].filter(([, statements]) => statements.some(isExported)).map(([name]) => name);
    return [...own, ...file.exported.keys(), ...starsOf(file).flatMap(namesOf)];
  };

  const need = (file, name) => {
    if (file.exported.has(name) && !file.neededExports.has(name)) {
      file.neededExports.add(name);
      const { module, name: there } = file.exported.get(name);
      if (module === undefined) use(file, there);
      else if (fileOf(file, module)) need(fileOf(file, module), there);
    } else if (file.declared.has(name)) use(file, name);
    else for (const from of starsOf(file)) need(from, name);
  };

  /** A name that stands in a file. */
  const use = (file, name) => {
    if (file.imported.has(name) && !file.neededImports.has(name)) {
      file.neededImports.add(name);
      const { module, name: there } = file.imported.get(name);
      const from = fileOf(file, module);
      if (from) need(from, there);
    }
    for (const statement of file.declared.get(name) ?? []) {
      if (file.needed.has(statement)) continue;
      file.needed.add(statement);
      walk(file, statement);
    }
  };

  const walk = (file, node) => {
    if (ts.isIdentifier(node)) use(file, node.text);
    if (ts.isImportTypeNode(node)) {
      const from = fileOf(file, node.argument.literal.text);
      if (from) for (const name of namesOf(from)) need(from, name);
    }
    ts.forEachChild(node, (child) => walk(file, child));
  };

  for (const path of entries) {
    const file = fileAt(path);
    for (const name of namesOf(file)) need(file, name);
  }
  for (const name of readdirSync(folder, { recursive: true })) {
    const path = join(folder, name);
    if (!name.endsWith(".d.ts") || !existsSync(path)) continue;
    const file = files.get(path);
    const isLeft = file && (entries.includes(path) || file.needed.size + file.neededExports.size > 0);
    if (isLeft) writeFileSync(path, file.text());
    else rmSync(path);
  }
}
