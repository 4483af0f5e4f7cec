// What the page holds: one object per row, marks, and what may be shown of them, in which order.
const { element, svg, short } = Charts;
const data = JSON.parse(document.getElementById("data").textContent);
const addresses = JSON.parse(document.getElementById("pictures").textContent);
const asked = data.kind === "questions";
const at = id => document.getElementById(id);
const text = n => (n < 0 || n === undefined || n === null ? "" : data.texts[n]);
Charts.all(data.figures);

// One object per row, from the columns.
const methods = data.methods.map((m, number) => {
    const columns = Object.entries(m.rows),
        lineless = m.tasks.every(t => t.line === null);
    const rows = (columns[0]?.[1] ?? []).map((_, n) => {
        const row = Object.fromEntries(columns.map(([name, column]) => [name, column[n]]));
        row.method = number;
        row.file = text(data.images.file[row.image]);
        row.label = data.images.label[row.image];
        row.scored = !asked && row.height !== null;
        // Whether the line holds for it: a task whose good pictures have no scores has none, beside others with one.
        row.lined = row.scored && (lineless || m.tasks[row.task].line !== null);
        row.failed = asked ? row.failed : !row.scored && row.said === null;
        row.key = [text(m.name), asked ? text(row.id) : text(data.images.id[row.image]), data.images.digest[row.image]].join("\n");
        return row;
    });
    return { ...m, name: text(m.name), number, rows, own: rows.some(r => r.said !== null && r.said !== undefined) };
});
const of = (row, column) => text(data.images[column][row.image]);
const labelled = methods.some(m => m.rows.some(r => r.label !== null)); // good ones beside them are known anyway
const state = { method: methods[0], shown: [], base: [], at: 0, lines: new Map(), filters: {}, open: -1 };

// Marks are kept by the browser, as far as it lets a page do so.
// They belong to the place the page was written to, the method and the picture's content, so that they outlive scores.
const shelf = `adcli ${data.page}`;
let marks = {};
const marked = () => {
    try {
        const kept = JSON.parse(localStorage.getItem(shelf));
        if (kept && typeof kept === "object") marks = kept;
    } catch {
        /* none are kept */
    }
};
marked();
const mark = (row, value) => {
    marked(); // another tab may have changed them
    if (marks[row.key] === value) delete marks[row.key];
    else marks[row.key] = value;
    try {
        localStorage.setItem(shelf, JSON.stringify(marks));
    } catch {
        warn("This browser keeps no marks: export the list before the page is closed.");
    }
};
const warn = said => {
    at("without").hidden = false;
    at("without").textContent = said;
};

// The line: where the good pictures put it, in the unit of the rows' heights.
const lined = r => r.lined;
const numbers = m => m.rows.filter(lined).map(r => r.height);
const drawnLine = m => {
    const line = m.tasks.map(t => t.line).find(l => l !== null);
    if (line !== undefined) return line;
    const sorted = numbers(m).sort((a, b) => b - a),
        called = m.own ? m.rows.filter(r => r.said === 1 && lined(r)).length : Math.floor(sorted.length / 10);
    return sorted.length ? (sorted[called] ?? sorted[sorted.length - 1] - 1e-9) : null;
};
const line = () => {
    if (!state.lines.has(state.method)) state.lines.set(state.method, drawnLine(state.method));
    return state.lines.get(state.method);
};
const byOwn = () => state.method.own && at("rule").value === "own";
const above = row => lined(row) && line() !== null && row.height > line();
const called = row => (byOwn() ? row.said === 1 : above(row));
const judged = row => row.label !== null && (byOwn() ? row.said !== null : lined(row) && line() !== null);
const wrong = row => (asked ? row.right === false : judged(row) && called(row) !== (row.label === 1));

const SHOWN = asked
    ? [
          ["all", "all", () => true],
          ["right", "right", r => r.right === true],
          ["mistakes", "only mistakes", wrong],
          ["unread", "named no option", r => text(r.how).startsWith("named no")],
          ["open", "open questions", r => !r.choices.length],
          ["groups", "groups with a mistake", r => r.group && r.group[0] < r.group[1]],
          ["failed", "failed rows", r => r.failed],
      ]
    : [
          ["all", "all", () => true],
          ...(methods.some(m => m.rows.some(lined))
              ? [
                    ["above", "above the line", above],
                    ["below", "not above the line", r => lined(r) && !above(r)],
                ]
              : []),
          ...(labelled
              ? [
                    ["mistakes", "only mistakes", wrong],
                    ["hits", "hits: anomalous, called so", r => judged(r) && called(r) && r.label === 1],
                    ["misses", "misses: anomalous, taken for normal", r => wrong(r) && r.label === 1],
                    ["alarms", "false alarms: normal, taken for anomalous", r => wrong(r) && r.label === 0],
                ]
              : []),
          ["failed", "failed rows", r => r.failed],
      ];
SHOWN.push(
    ["checked", "marked checked", r => marks[r.key] === "checked"],
    ["wrong", "marked wrong", r => marks[r.key] === "wrong"],
    ["open-marks", "not marked", r => !marks[r.key]],
);
// Rows with a yes or no alone follow those with a score, failed ones come last.
const height = r => (r.scored ? r.height : r.said === 1 ? -1e300 : r.said === 0 ? -2e300 : -Infinity);
const names = (a, b) => (a.file > b.file) - (a.file < b.file);
const id = r => text(data.images.id[r.image]);
const highest = (a, b) =>
    (height(b) > height(a)) - (height(b) < height(a)) ||
    Number(b.score) - Number(a.score) ||
    (id(a) > id(b)) - (id(a) < id(b));
const ORDERS = asked
    ? [
          ["asked", "as asked", null],
          ["mark", "lowest judge's mark first", (a, b) => (a.score ?? 9) - (b.score ?? 9)],
          ["name", "by name", names],
      ]
    : [
          ["highest", "most unusual first", highest],
          ["lowest", "least unusual first", (a, b) => b.scored - a.scored || -highest(a, b)],
          [
              "nearest",
              "nearest to the line first",
              (a, b) =>
                  b.scored - a.scored || (!a.scored ? 0 : Math.abs(a.height - line()) - Math.abs(b.height - line())),
          ],
          ["name", "by name", names],
      ];
const FILTERS = [
    ["dataset", "Data set"],
    ["category", "Category"],
    ["condition", "Condition"],
    ...(asked ? [["level", "Level"]] : [["defect", "Defect"]]),
];
const value = (row, name) =>
    name === "level" ? text(row.level) : of(row, name === "condition" ? "conditionName" : name);

function options(select, pairs) {
    const before = select.value;
    select.replaceChildren(...pairs.map(([v, name]) => element("option", { value: v }, name)));
    if (pairs.some(([v]) => v === before)) select.value = before;
}

// What the filters leave, without and with what `show` says of the line, failures and marks.
function filter() {
    const words = at("search").value.trim().toLowerCase().normalize();
    const texts = r => (asked ? [r.file, id(r), text(r.question), text(r.text)] : [r.file, id(r), text(r.text)]);
    state.base = state.method.rows.filter(
        r =>
            Object.entries(state.filters).every(
                ([name, want]) => want.value === "" || value(r, name) === want.value.slice(1),
            ) &&
            (!words || texts(r).some(t => t.toLowerCase().normalize().includes(words))),
    );
    if (!asked) state.base.sort(highest);
    const tasks = new Set(state.base.map(r => r.task));
    state.tasks = state.method.tasks.filter((_, n) => tasks.has(n));
    state.good = state.tasks.flatMap(t => t.good).sort((a, b) => a - b);
    state.heights = state.base.filter(lined).map(r => r.height);
    distribution();
    select();
}

function select() {
    const [, , wanted] = SHOWN.find(([v]) => v === at("show").value) ?? SHOWN[0];
    const [, , order] = ORDERS.find(([v]) => v === at("order").value);
    state.shown = state.base.filter(wanted);
    if (order && order !== highest) state.shown.sort(order); // that order they have already
    count();
    const without = state.base.filter(r => r.scored && !lined(r)).length,
        elsewhere = methods.filter(m => m !== state.method).flatMap(m => m.rows.filter(r => marks[r.key])).length;
    at("found").textContent = [
        `${state.shown.length.toLocaleString("en")} of ${state.method.rows.length.toLocaleString("en")} ${asked ? "questions" : "pictures"}`,
        without && `${without.toLocaleString("en")} without a line: no good picture of their kind has a score`,
        elsewhere && `${elsewhere.toLocaleString("en")} marked under other methods`,
    ]
        .filter(Boolean)
        .join(" · ");
    const first = state.shown.length ? Math.min(state.at, state.shown.length - 1) : 0;
    state.at = first;
    layout(true);
}
