// Bundles the libraries, and writes their licences, versions and hashes beside them.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";

const out = "../alignkit/view/static";
mkdirSync(`${out}/katex/fonts`, { recursive: true });
await build({
  entryPoints: ["entry.js"], bundle: true, minify: true, format: "iife", globalName: "vendor",
  outfile: `${out}/vendor.js`, legalComments: "none", target: "es2020",
});
copyFileSync("node_modules/uplot/dist/uPlot.min.css", `${out}/vendor.css`);
for (const name of ["katex.min.js", "katex.min.css"]) {
  copyFileSync(`node_modules/katex/dist/${name}`, `${out}/katex/${name}`);
}
for (const name of readdirSync("node_modules/katex/dist/fonts")) {
  if (name.endsWith(".woff2")) copyFileSync(`node_modules/katex/dist/fonts/${name}`, `${out}/katex/fonts/${name}`);
}
const packages = ["preact", "htm", "uplot", "katex"];
const licences = packages.map((name) => {
  const home = `node_modules/${name}`;
  const { version, license } = JSON.parse(readFileSync(`${home}/package.json`));
  const file = readdirSync(home).find((entry) => /^licen[sc]e/i.test(entry));
  return `${name} ${version} (${license})\n\n${readFileSync(`${home}/${file}`, "utf8").trim()}\n`;
});
writeFileSync(`${out}/LICENSES.txt`, licences.join("\n---\n\n"));
const files = ["vendor.js", "vendor.css", "katex/katex.min.js", "katex/katex.min.css",
  ...readdirSync(`${out}/katex/fonts`).sort().map((name) => `katex/fonts/${name}`)];
const hashes = files.map((name) => `${createHash("sha256").update(readFileSync(`${out}/${name}`)).digest("hex")}  ${name}`);
writeFileSync(`${out}/SHA256SUMS`, hashes.join("\n") + "\n");
