// The line between usual and unusual: counts, slider, distribution.
const beyond = (sorted, limit) => {
    let low = 0,
        high = sorted.length;
    while (low < high) {
        const mid = (low + high) >> 1;
        if (sorted[mid] > limit) low = mid + 1;
        else high = mid;
    }
    return low;
};
// How many of those in view each choice of what to show holds.
function choices() {
    for (const option of at("show").options) {
        const [, name, wanted] = SHOWN.find(([v]) => v === option.value);
        option.textContent = `${name} (${state.base.filter(wanted).length.toLocaleString("en")})`;
    }
}
function count() {
    choices();
    if (at("line").hidden) return;
    const n = beyond(state.heights, line());
    const high = state.good.filter(v => v > line()).length,
        parts = [`${n.toLocaleString("en")} of ${state.heights.length.toLocaleString("en")} above the line`];
    if (state.good.length)
        parts.push(
            `${high} of ${state.good.length.toLocaleString("en")} good pictures above it (${((100 * high) / state.good.length).toFixed(1)} %)`,
        );
    for (const [label, name] of labelled
        ? [
              [1, "anomalous"],
              [0, "normal"],
          ]
        : []) {
        const known = state.base.filter(r => r.label === label && lined(r));
        if (known.length)
            parts.push(
                `${known.filter(above).length.toLocaleString("en")} of ${known.length.toLocaleString("en")} ${name}`,
            );
    }
    at("count").textContent = parts.join(" · ");
    const raw = rawLine();
    at("slider").value = state.T(line());
    if (document.activeElement !== at("value")) at("value").value = +raw.toPrecision(state.method.digits);
    at("unit").textContent = state.method.tasks.every(t => t.line === null)
        ? "Line (no good picture has a score of its own, which could draw it)"
        : unit()
          ? "Line, in distances from the median good picture to the drawn line"
          : "Line";
    at("distribution-line")?.setAttribute("x1", state.X(line()));
    at("distribution-line")?.setAttribute("x2", state.X(line()));
}
// With one task in view the line is one of its scores, with several it has their common unit.
const unit = () => state.tasks.length > 1 && state.tasks.some(t => t.unit !== 1 || t.zero !== 0);
const rawLine = () => (state.tasks.length === 1 ? state.tasks[0].zero + line() * state.tasks[0].unit : line());
const moveTo = to => {
    state.lines.set(state.method, to);
    if (state.method.own) at("rule").value = "line";
    schedule();
};
let waiting = 0;
// While a picture is enlarged the list stays as it is; it follows the line when the dialog closes.
const schedule = () => {
    waiting ||= requestAnimationFrame(() => {
        waiting = 0;
        if (at("detail").open) {
            count();
            draw(state.open);
        } else select();
    });
};
// Below the nth highest of those in view (from 0): above the next lower one of all, ranked or good.
const below = n => {
    const own = state.heights[n],
        next = [...numbers(state.method), ...state.good].reduce(
            (most, h) => (h < own && h > most ? h : most),
            -Infinity,
        );
    return Number.isFinite(next) ? (own + next) / 2 : own - Math.max(Math.abs(own) * 1e-6, 1e-9);
};
const lower = () => {
    const n = beyond(state.heights, line());
    if (n < state.heights.length) moveTo(below(n));
};
const raise = () => {
    const n = beyond(state.heights, line());
    if (n > 0) moveTo(state.heights[n - 1]);
};

function distribution() {
    const drawing = at("distribution"),
        slider = at("slider"),
        all = numbers(state.method).concat(state.method.tasks.flatMap(t => t.good));
    const low = all.reduce((a, b) => Math.min(a, b), Infinity),
        high = all.reduce((a, b) => Math.max(a, b), -Infinity),
        room = (high - low || 1) * 0.01;
    at("line").hidden = asked || !all.length || line() === null || (state.base.length > 0 && !state.heights.length);
    if (at("line").hidden) return;
    // Even steps around the middle half of all scores, ever larger ones beyond: one outlier does not take all the room.
    const sorted = all.sort((a, b) => a - b),
        [lower, middle, upper] = [0.25, 0.5, 0.75].map(q => sorted[Math.floor(q * (sorted.length - 1))]),
        scale = upper - lower || high - low || 1;
    state.T = v => Math.asinh((v - middle) / scale);
    state.back = t => middle + scale * Math.sinh(t);
    const min = state.T(Math.min(low - room, line())),
        max = state.T(Math.max(high + room, line())),
        bins = 80,
        W = 1000,
        H = 56;
    [slider.min, slider.max] = [min, max];
    state.X = v => 8 + ((state.T(v) - min) / (max - min)) * (W - 16);
    drawing.setAttribute("viewBox", `0 0 ${W} ${H}`);
    const groups = [
        ["good", state.good, "var(--good)"],
        ["anomalous", state.base.filter(r => r.label === 1 && lined(r)).map(r => r.height), "var(--bad)"],
        ["normal", state.base.filter(r => r.label === 0 && lined(r)).map(r => r.height), "var(--good)"],
        ["pictures", state.base.filter(r => r.label === null && lined(r)).map(r => r.height), "var(--unknown)"],
    ];
    drawing.replaceChildren();
    for (const [name, values, fill] of groups.filter(g => g[1].length)) {
        const c = new Array(bins).fill(0);
        for (const v of values)
            c[Math.min(Math.max(Math.floor(((state.T(v) - min) / (max - min)) * bins), 0), bins - 1)]++;
        const most = c.reduce((a, b) => Math.max(a, b));
        c.forEach((n, i) => {
            if (n) {
                const bar = svg("rect", {
                    x: 8 + (i * (W - 16)) / bins,
                    width: (W - 16) / bins,
                    y: H - (n / most) * H,
                    height: (n / most) * H,
                    fill,
                    opacity: 0.55,
                });
                bar.append(svg("title", {}, `${n} ${name}`));
                drawing.append(bar);
            }
        });
    }
    drawing.append(
        svg("line", {
            id: "distribution-line",
            x1: 0,
            x2: 0,
            y1: 0,
            y2: H,
            stroke: "var(--ink)",
            "stroke-width": 2,
            "vector-effect": "non-scaling-stroke",
        }),
    );
}
