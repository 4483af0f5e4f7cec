// Controls, and the histograms of the tasks.
function histograms() {
    const box = at("task-histograms");
    for (const m of box ? methods : []) {
        m.tasks.forEach((t, n) => {
            const chart = element("div", { className: "chart small" });
            chart.style.minHeight = "140px";
            box.append(chart);
            Charts.lazily(chart, () => {
                const rows = m.rows.filter(r => r.task === n && r.scored),
                    of_label = l => rows.filter(r => r.label === l).map(r => t.zero + r.height * t.unit),
                    raw = t.good.map(h => t.zero + h * t.unit),
                    own = of_label(0),
                    groups = [
                        {
                            name: own.length ? "normal" : "held-out normal",
                            colour: "var(--good)",
                            values: own.length || !t.heldOut ? own : raw,
                        },
                        { name: "anomalous", colour: "var(--bad)", values: of_label(1) },
                        { name: "unlabelled", colour: "var(--unknown)", values: of_label(null) },
                    ].filter(g => g.values.length),
                    all = groups.flatMap(g => g.values);
                const title = [text(t.category), text(t.condition), methods.length > 1 && m.name]
                    .filter(Boolean)
                    .join(" · ");
                if (!all.length) {
                    chart.replaceChildren(element("h3", {}, title), element("p", { className: "note" }, "no scores"));
                    return;
                }
                Charts.histogram(chart, {
                    title,
                    groups,
                    low: all.reduce((a, b) => Math.min(a, b)),
                    high: all.reduce((a, b) => Math.max(a, b)),
                    line: t.line === null ? null : t.zero + t.line * t.unit,
                });
            });
        });
    }
}

// Controls.
function start() {
    options(
        at("method"),
        methods.map((m, n) => [n, m.name]),
    );
    at("method-label").hidden = methods.length < 2;
    options(at("show"), SHOWN);
    options(at("order"), ORDERS);
    for (const [name, title] of FILTERS) {
        const found = [...new Set(methods.flatMap(m => m.rows.map(r => value(r, name))))].sort();
        if (found.length < 2) continue;
        const select = (state.filters[name] = element("select", { id: `filter-${name}`, onchange: filter }));
        options(select, [["", "all"], ...found.map(v => [`=${v}`, v || "none"])]);
        at("filters").append(element("label", {}, title, select));
    }
    at("heat-label").hidden = !Object.keys(addresses).some(k => k.startsWith("h"));
    const choose = () => {
        state.method = methods[at("method").value || 0];
        at("rule-label").hidden = !state.method.own || !labelled;
        filter();
    };
    at("method").onchange = choose;
    at("search").oninput = filter;
    at("show").onchange = at("order").onchange = at("rule").onchange = select;
    at("heat").onchange = () => layout(true);
    at("all").onclick = () => {
        for (const s of Object.values(state.filters)) s.value = "";
        at("search").value = "";
        at("show").value = "all";
        at("order").value = ORDERS[0][0];
        filter();
    };
    at("slider").oninput = () => moveTo(state.back(+at("slider").value));
    at("slider").onkeydown = e => {
        const step = { ArrowLeft: lower, ArrowDown: lower, ArrowRight: raise, ArrowUp: raise }[e.key];
        if (step) {
            e.preventDefault();
            step();
        }
    };
    at("value").onchange = () => {
        const v = at("value").valueAsNumber,
            t = state.tasks.length === 1 ? state.tasks[0] : { zero: 0, unit: 1 };
        if (Number.isFinite(v)) moveTo((v - t.zero) / t.unit);
    };
    at("lower").onclick = lower;
    at("raise").onclick = raise;
    at("back").onclick = () => moveTo(drawnLine(state.method));
    at("looking").hidden = false;
    addEventListener("storage", e => {
        if (e.key !== shelf) return;
        marked();
        if (at("detail").open) pressed(state.shown[state.open]);
        else select();
    });
    addEventListener("beforeprint", () => {
        const most = Math.min(state.shown.length, PRINTED);
        for (let n = 0; n < most; n++) if (!cards.has(n)) add(n);
        for (const [n, card] of cards) card.hidden = n >= most;
        at("printed").textContent = `Printed: the first ${most} of ${state.shown.length} shown; the exported list has all.`;
    });
    addEventListener("afterprint", () => layout(true));
    let pending = false;
    addEventListener(
        "scroll",
        () => {
            if (!pending) {
                pending = true;
                requestAnimationFrame(() => {
                    pending = false;
                    render();
                });
            }
        },
        { passive: true },
    );
    new ResizeObserver(() => {
        if (grid.clientWidth && Math.abs(grid.clientWidth - (place.card + GAP) * place.columns + GAP) > 1) layout(true);
    }).observe(grid);
    choose();
    histograms();
}

start();
