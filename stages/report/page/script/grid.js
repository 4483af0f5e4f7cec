// The grid: only the cards in view, and the one that has the focus or had it last, are in the document.
const grid = at("grid"),
    GAP = 10,
    PRINTED = 200, // cards, when the page is printed
    cards = new Map();
let place = {};
function layout(anew) {
    if (anew) {
        const kept = document.activeElement?.closest?.("#grid li");
        grid.replaceChildren();
        cards.clear();
        if (kept) requestAnimationFrame(() => focus(state.at));
    }
    const width = grid.clientWidth,
        columns = Math.max(2, Math.floor((width + GAP) / (190 + GAP))),
        card = (width - GAP * (columns - 1)) / columns;
    place = { columns, card, row: card + 84 + GAP };
    grid.style.height = `${Math.ceil(state.shown.length / columns) * place.row}px`;
    render();
}
function render() {
    const top = -grid.getBoundingClientRect().top,
        rows = Math.ceil(state.shown.length / place.columns);
    const from = Math.min(Math.max(Math.floor(top / place.row) - 2, 0), Math.max(rows - 2, 0)),
        to = Math.max(Math.ceil((top + innerHeight) / place.row) + 2, from + 2);
    const first = from * place.columns,
        last = Math.min(to * place.columns, state.shown.length);
    for (const [n, card] of cards)
        if ((n < first || n >= last) && n !== state.at) {
            card.remove();
            cards.delete(n);
        }
    for (let n = first; n < last; n++) if (!cards.has(n)) add(n);
    if (state.shown.length && !cards.has(state.at)) add(state.at); // where the keyboard enters the list
}
function add(n) {
    const card = cardOf(state.shown[n], n),
        before = [...cards.keys()].filter(k => k < n).reduce((a, b) => Math.max(a, b), -1);
    if (before >= 0) cards.get(before).after(card);
    else grid.prepend(card);
    card.style.transform = `translate(${(n % place.columns) * (place.card + GAP)}px, ${Math.floor(n / place.columns) * place.row}px)`;
    card.style.width = `${place.card}px`;
    card.style.height = `${place.row - GAP}px`;
    cards.set(n, card);
}
const truth = row =>
    row.label === null || row.label === undefined ? "" : row.label === 1 ? of(row, "defect") || "anomalous" : "normal";
const ANSWERS = ["answered: normal", "answered: anomalous"];
const verdict = row =>
    asked
        ? row.right === null
            ? text(row.how) || "open"
            : row.right
              ? "right"
              : "wrong"
        : row.failed
          ? "failed"
          : above(row)
            ? "above the line"
            : row.scored
              ? ""
              : ANSWERS[row.said];

function picture(row, { heat, outline, alt, image = row.image }) {
    const box = element("div", { className: "picture" }),
        address = addresses[`p${image}`],
        map = addresses[`h${row.method}-${row.image}`];
    if (!address) {
        box.append(element("span", {}, text(data.images.problem[image]) || "no picture"));
        return box;
    }
    const [w, h] = data.images.size[image],
        fit = Math.max(w, h),
        img = element("img", { alt, decoding: "async", src: address });
    img.onerror = () => {
        const beside = decodeURIComponent(address.split("/")[0]);
        box.replaceChildren(element("span", {}, `${beside}/ is not beside this page`));
        warn(`The pictures are missing: the folder ${beside} has to lie beside this page.`);
    };
    box.append(img);
    if (heat && map) {
        const over = element("img", { alt: "", className: "heat", src: map });
        if (heat === "alone") {
            over.style.opacity = 1;
            over.alt = "anomaly map";
            img.remove();
        }
        over.style.objectFit = "fill";
        over.style.inset = "auto";
        over.style.width = `${(100 * w) / fit}%`;
        over.style.height = `${(100 * h) / fit}%`;
        box.append(over);
    }
    const edge = text(data.images.outline[image]);
    if (outline && edge) {
        const drawing = svg("svg", {
            viewBox: `${(w - fit) / 2} ${(h - fit) / 2} ${fit} ${fit}`,
            "aria-hidden": "true",
        });
        drawing.append(svg("path", { d: edge }));
        box.append(drawing);
    }
    return box;
}

function cardOf(row, n) {
    const name = row.file.split("/").pop(),
        said = verdict(row).replace(" the line", "");
    const score = asked ? text(row.question) : row.scored ? row.score : text(row.error) || "no score";
    const where = [
        truth(row),
        ...FILTERS.slice(0, 3)
            .filter(([f]) => state.filters[f])
            .map(([f]) => of(row, f === "condition" ? "conditionName" : f)),
    ]
        .filter(Boolean)
        .join(" · ");
    const button = element(
        "button",
        { type: "button", className: `card${above(row) && !asked ? " above" : ""}`, tabIndex: n === state.at ? 0 : -1 },
        picture(row, { heat: at("heat").checked, outline: at("heat").checked, alt: "" }),
        marks[row.key] ? element("div", { className: "marked" }, `marked ${marks[row.key]}`) : "",
        element(
            "div",
            { className: "words" },
            element("div", { className: "name", title: row.file }, name),
            element(
                "div",
                { title: score, className: asked ? "asked" : "" },
                element("b", {}, score),
                said && !asked ? " · " : "",
                asked ? "" : element("span", { className: "said" }, said),
            ),
            element(
                "div",
                { title: where },
                asked ? element("span", { className: row.right === false ? "said" : "said fine" }, said) : "",
                asked && said && where ? " · " : "",
                where,
            ),
            element("div", {}, !asked && row.percentile !== null ? `above ${row.percentile} % of the good` : ""),
        ),
    );
    button.addEventListener("click", () => open(n));
    button.addEventListener("focus", () => {
        if (state.at !== n) {
            const old = cards.get(state.at)?.firstChild;
            if (old) old.tabIndex = -1;
            state.at = n;
            button.tabIndex = 0;
        }
    });
    return element("li", { "aria-setsize": state.shown.length, "aria-posinset": n + 1 }, button);
}
function focus(n) {
    if (!state.shown.length) return;
    n = Math.min(Math.max(n, 0), state.shown.length - 1);
    if (!cards.has(n)) add(n);
    cards.get(n).firstChild.focus({ preventScroll: true });
    cards.get(n).firstChild.scrollIntoView({ block: "nearest" });
}
grid.addEventListener("keydown", e => {
    const page = place.columns * Math.max(Math.floor(innerHeight / place.row) - 1, 1);
    const to = {
        ArrowRight: state.at + 1,
        ArrowLeft: state.at - 1,
        ArrowDown: state.at + place.columns,
        ArrowUp: state.at - place.columns,
        Home: 0,
        End: state.shown.length - 1,
        PageDown: state.at + page,
        PageUp: state.at - page,
    }[e.key];
    if (to !== undefined && !e.ctrlKey && !e.metaKey && !e.altKey) {
        e.preventDefault();
        focus(to);
    } else marking(e, state.shown[state.at]);
});
function marking(e, row) {
    const wanted = { c: "checked", w: "wrong" }[e.key.toLowerCase()];
    if (!wanted || !row || e.ctrlKey || e.metaKey || e.altKey) return;
    e.preventDefault();
    set(row, wanted);
}
function set(row, wanted) {
    mark(row, wanted);
    const n = state.shown.indexOf(row),
        card = cards.get(n);
    if (card) {
        const focused = card.contains(document.activeElement);
        card.replaceChildren(...cardOf(row, n).children);
        if (focused) card.firstChild.focus();
    }
    if (at("detail").open) pressed(row);
    choices();
}
