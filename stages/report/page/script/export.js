// The list as it is shown, with the marks. A cell that a spreadsheet would take for a formula gets one ' in front.
const FIGURE =
    /^(-( \/ (-|[-+]?\d+(\.\d+)?(e[-+]?\d+)?))*|[-+]?\d+(\.\d+)?(e[-+]?\d+)?(±[-+]?\d+(\.\d+)?(e[-+]?\d+)?)?( %)?)$/i;
const cell = v => {
    v = String(v ?? "");
    if (!FIGURE.test(v) && /^[=+\-@\t\r\n＝＋－＠']/.test(v)) v = `'${v}`;
    v = v.replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/g, c => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
    return /[",;\r\n]/.test(v) ? `"${v.replaceAll('"', '""')}"` : v;
};
function table() {
    const several = FILTERS.slice(0, 3).filter(([f]) => state.filters[f]),
        yes = r => (line() === null || !state.good.length || !lined(r) ? "" : above(r) ? "yes" : "no");
    const columns = asked
        ? [
              ["file", r => r.file],
              ...several.map(([f, name]) => [name.toLowerCase(), r => of(r, f)]),
              ["question id", r => text(r.id)],
              ["question", r => text(r.question)],
              ["level", r => text(r.level)],
              ["method", r => methods[r.method].name],
              ["right answer", r => text(r.answer)],
              ["chosen", r => text(r.choices[r.choice] ?? -1)],
              ["reply", r => text(r.text)],
              ["verdict", verdict],
              ["judge", r => text(r.marks)],
              ["similarity", r => r.similarity],
              ["why it failed", r => text(r.error)],
          ]
        : [
              ["file", r => r.file],
              ...several.map(([f, name]) => [name.toLowerCase(), r => of(r, f)]),
              ...(methods.length > 1 ? [["method", r => methods[r.method].name]] : []),
              ["score", r => r.score],
              ["percentile among the good", r => r.percentile],
              ["above the line", r => (r.scored ? yes(r) : "no score")],
              ...(labelled ? [["label", r => (r.label === null ? "" : r.label ? "anomalous" : "normal")]] : []),
              ...(state.filters.defect ? [["defect", r => of(r, "defect")]] : []),
              ...(methods.some(m => m.rows.some(r => r.failed)) ? [["why it failed", r => text(r.error)]] : []),
          ];
    return [...columns, ["mark", r => marks[r.key] ?? ""]];
}
function save(name, kind, content) {
    const link = element("a", { download: name, href: URL.createObjectURL(new Blob([content], { type: kind })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
const figure = (name, v) => (/^(score|percentile.*)$/.test(name) && v !== null && v !== "" ? Number(v) : v);
at("csv").onclick = () => {
    const columns = table(),
        lines = [columns.map(([n]) => n), ...state.shown.map(r => columns.map(([, f]) => f(r)))];
    // Excel reads it as UTF-8 by the mark in front.
    save("ranking.csv", "text/csv", "\ufeff" + lines.map(l => l.map(cell).join(",") + "\n").join(""));
};
at("json").onclick = () => {
    const columns = table(),
        rows = state.shown.map(r => Object.fromEntries(columns.map(([n, f]) => [n, figure(n, f(r) ?? null)])));
    const about = {
        run: data.run,
        method: state.method.name,
        line: asked ? null : rawLine(),
        unit: unit() ? "distances from the median good picture to the drawn line" : "score",
    };
    save("ranking.json", "application/json", JSON.stringify({ ...about, rows }, null, 1));
};
