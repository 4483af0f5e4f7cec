// Enlarged.
const words = (value, differs) => {
    const parts = value.split(/[\s\x1c-\x1f\x85]+/).filter(Boolean),
        other = new Set(differs ?? []);
    return parts.flatMap((w, n) => [other.has(n) ? element("mark", {}, w) : w, " "]);
};
const view = (box, caption) => element("figure", {}, box, element("figcaption", {}, caption));
const plain = row =>
    view(
        picture(row, { outline: true, alt: "picture" }),
        "picture" + (text(data.images.outline[row.image]) ? ", the mask outlined" : ""),
    );
function pressed(row) {
    for (const m of ["checked", "wrong"]) at(m).setAttribute("aria-pressed", marks[row.key] === m);
}

function answered(row) {
    const parts = [element("p", { className: "facts" }, text(row.question))];
    if (row.choices.length)
        parts.push(
            element(
                "ul",
                { className: "choices" },
                ...row.choices.map((c, n) =>
                    element(
                        "li",
                        { className: n === row.choice ? "chosen" : "" },
                        `${c === row.answer ? "✓ " : ""}${text(c)}${n === row.choice ? " (chosen)" : ""}`,
                    ),
                ),
            ),
        );
    else if (text(row.answer))
        parts.push(
            element("p", { className: "note" }, "right answer"),
            element("p", { className: "said-text" }, text(row.answer)),
        );
    if (text(row.text))
        parts.push(
            element("p", { className: "note" }, "reply"),
            element("p", { className: "said-text" }, text(row.text)),
        );
    const facts = [
        verdict(row),
        text(row.how),
        text(row.marks) && `judge: ${text(row.marks)}`,
        row.similarity !== null && `similarity ${row.similarity.toFixed(2)}`,
        row.group && `${row.group[0]} of ${row.group[1]} questions about this image right`,
        text(row.error),
    ].filter(Boolean);
    parts.push(element("p", { className: "facts" }, element("b", {}, facts.join(" · "))));
    return parts;
}
function scored(row) {
    const own = state.method.number === row.method,
        m = methods[row.method],
        parts = [],
        views = element("div", { className: "views" }, ...(own ? [plain(row)] : []));
    const facts = row.failed
        ? [`failed: ${text(row.error) || "no score"}`]
        : [
              row.scored ? `score ${row.score}` : "no score",
              row.percentile !== null && `above ${row.percentile} % of the good pictures`,
              own && lined(row) && line() !== null && (above(row) ? "above the line" : "not above the line"),
              row.said !== null && `its own answer: ${row.said ? "anomalous" : "normal"}`,
          ].filter(Boolean);
    parts.push(element("h3", {}, m.name), element("p", { className: "facts" }, element("b", {}, facts.join(" · "))));
    if (addresses[`h${row.method}-${row.image}`])
        views.append(
            view(
                picture(row, { heat: "over", outline: true, alt: "picture with its anomaly map" }),
                "anomaly map over the picture" + (text(data.images.outline[row.image]) ? ", the mask outlined" : ""),
            ),
            view(picture(row, { heat: "alone", alt: "anomaly map" }), "anomaly map, blue to red"),
        );
    if (row.near >= 0)
        views.append(
            view(
                picture(row, { image: row.near, alt: text(row.nearKind) }),
                `${text(row.nearKind)}: ${text(data.images.file[row.near])}`,
            ),
        );
    parts.push(views);
    if (text(row.text))
        parts.push(
            element("p", { className: "note" }, text(row.nearText) ? "caption" : "answer"),
            element("p", { className: "said-text" }, ...words(text(row.text), row.differs?.[0])),
        );
    if (text(row.nearText))
        parts.push(
            element("p", { className: "note" }, "nearest normal caption; words that differ are marked"),
            element("p", { className: "said-text" }, ...words(text(row.nearText), row.differs?.[1])),
        );
    return parts;
}
function draw(n) {
    const row = state.shown[(state.open = n)],
        others = methods
            .filter(m => m !== state.method)
            .flatMap(m => m.rows.filter(r => r.image === row.image && (!asked || r.id === row.id)));
    at("detail-title").textContent = `${n + 1} of ${state.shown.length}: ${row.file}`;
    const where = [
        truth(row),
        of(row, "dataset"),
        of(row, "category"),
        of(row, "conditionName"),
        asked && text(row.level),
    ]
        .filter(Boolean)
        .join(" · ");
    const first = asked ? [element("div", { className: "views" }, plain(row))] : [];
    if (asked && row.near >= 0)
        first[0].append(view(picture(row, { image: row.near, alt: "reference image" }), "reference image"));
    const by = r =>
        element(
            "div",
            { className: r === row ? "by chosen" : "by" },
            ...(asked ? [element("h3", {}, methods[r.method].name), ...answered(r)] : scored(r)),
        );
    const others_of_group = asked ? state.method.rows.filter(r => r.image === row.image && r !== row) : [];
    at("shown").replaceChildren(
        element("p", { className: "note" }, where),
        ...first,
        by(row),
        ...others.map(by),
        ...(others_of_group.length
            ? [
                  element("h3", {}, "Other questions about this image"),
                  element(
                      "ul",
                      {},
                      ...others_of_group.map(r => element("li", {}, `${verdict(r)}: ${text(r.question)}`)),
                  ),
              ]
            : []),
    );
    at("previous").disabled = n === 0;
    at("next").disabled = n === state.shown.length - 1;
    at("here").hidden = !row.scored || !lined(row);
    pressed(row);
    keepFocus();
}
// A button that is switched off or hidden under the focus would take the keyboard with it.
function keepFocus() {
    const has = document.activeElement;
    if (!at("detail").open || (at("detail").contains(has) && !has.disabled && !has.hidden)) return;
    (["next", "previous"].map(at).find(b => !b.disabled) ?? at("close")).focus();
}
function open(n) {
    state.at = n;
    draw(n);
    if (!at("detail").open) at("detail").showModal();
    at("shown").scrollTop = 0;
}
const walk = by => {
    const to = state.open + by;
    if (to >= 0 && to < state.shown.length) draw(to);
};
at("detail").addEventListener("keydown", e => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (by && !e.ctrlKey && !e.metaKey && !e.altKey) {
        e.preventDefault();
        walk(by);
    } else marking(e, state.shown[state.open]);
});
at("detail").addEventListener("close", () => {
    const before = state.shown,
        n = state.open;
    select();
    // Where it has left the list: the next one that has stayed, otherwise the last before it.
    const stayed = new Map(state.shown.map((r, k) => [r, k])),
        to = before.slice(n).find(r => stayed.has(r)) ?? before.slice(0, n).findLast(r => stayed.has(r));
    focus(stayed.get(to) ?? 0);
});
at("detail").addEventListener("click", e => {
    if (e.target === at("detail")) at("detail").close(); // beside what is shown
});
at("previous").onclick = () => walk(-1);
at("next").onclick = () => walk(1);
at("close").onclick = () => at("detail").close();
for (const m of ["checked", "wrong"]) at(m).onclick = () => set(state.shown[state.open], m);
at("here").onclick = () => {
    const row = state.shown[state.open];
    moveTo(below(state.heights.indexOf(row.height)));
};
