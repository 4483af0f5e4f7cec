// Figures as SVG with the values under the pointer or, with the arrow keys, of one point after another. Names become
// text nodes alone. Each figure is drawn when it comes into view.
const Charts = (() => {
    const SPACE = "http://www.w3.org/2000/svg";
    const svg = (tag, attributes = {}, text = null) => {
        const node = document.createElementNS(SPACE, tag);
        for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
        if (text !== null) node.textContent = text;
        return node;
    };
    const element = (tag, properties = {}, ...children) => {
        const node = document.createElement(tag);
        for (const [name, value] of Object.entries(properties)) {
            if (name.startsWith("aria-") || name === "role" || name === "for") node.setAttribute(name, value);
            else node[name] = value;
        }
        node.append(...children);
        return node;
    };
    const colour = n => `hsl(${(215 + n * 137.5) % 360} 62% 52%)`;
    const short = v =>
        Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(1) : String(+v.toPrecision(4));

    const watcher = new IntersectionObserver(
        entries => {
            for (const entry of entries.filter(e => e.isIntersecting)) {
                watcher.unobserve(entry.target);
                entry.target.draw();
            }
        },
        { rootMargin: "300px" },
    );
    const lazily = (box, draw) => {
        box.draw = draw;
        watcher.observe(box);
    };

    const steps = (low, high, count = 5) => {
        const raw = (high - low) / count || 1,
            size = 10 ** Math.floor(Math.log10(raw));
        const step = [1, 2, 5, 10].map(f => f * size).find(s => s >= raw);
        const found = [];
        for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(+v.toPrecision(12));
        return found;
    };

    // The point nearest to the pointer says what it is; the figure can be focused and walked with the arrow keys.
    function readable(box, drawing, points) {
        const tip = element("div", { className: "tip", hidden: true, role: "status" });
        box.append(tip);
        let at = -1;
        const show = n => {
            at = n;
            const { x, y, text } = points[n],
                { top, width } = drawing.getBoundingClientRect(),
                scale = width / drawing.viewBox.baseVal.width;
            tip.textContent = text;
            tip.style.left = `${Math.min(Math.max(x * scale, 50), width - 50)}px`;
            tip.style.top = `${top - box.getBoundingClientRect().top + y * scale}px`;
            tip.hidden = false;
        };
        drawing.addEventListener("pointermove", e => {
            const { left, top: above, width } = drawing.getBoundingClientRect(),
                scale = drawing.viewBox.baseVal.width / width;
            const x = (e.clientX - left) * scale,
                y = (e.clientY - above) * scale;
            let best = -1,
                least = Infinity;
            points.forEach((p, n) => {
                const d = p.tall
                    ? y >= p.from && y <= p.to
                        ? 0
                        : Infinity
                    : p.wide
                      ? x >= p.from && x <= p.to
                          ? 0
                          : Infinity
                      : (p.x - x) ** 2 + (p.y - y) ** 2;
                if (d < least) [best, least] = [n, d];
            });
            if (best >= 0 && least < 1600) show(best);
            else tip.hidden = true;
        });
        drawing.addEventListener("pointerleave", () => {
            tip.hidden = true;
        });
        drawing.addEventListener("blur", () => {
            tip.hidden = true;
        });
        drawing.addEventListener("keydown", e => {
            const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
            if (step && points.length) {
                e.preventDefault();
                show((at + step + points.length) % points.length);
            }
        });
    }

    const frame = (box, title, width, height) => {
        const drawing = svg("svg", {
            viewBox: `0 0 ${width} ${height}`,
            role: "img",
            tabindex: 0,
            "aria-label": `${title}. Arrow keys read its values.`,
        });
        box.replaceChildren(element("h4", {}, title), drawing);
        return drawing;
    };

    function plot(box, figure) {
        const ticked = figure.ticks ?? [],
            broad = ticked.length > 6,
            W = broad ? 900 : 480,
            H = 300;
        const slanted = ticked.length > 12,
            left = 46,
            right = 12,
            top = 10,
            bottom = slanted ? 90 : 40;
        const all = figure.series.flatMap(s => s.points),
            log = figure.log ? Math.log10 : v => v;
        const reach = (limits, n, map) =>
            limits ??
            (v => [v.reduce((a, b) => Math.min(a, b)), v.reduce((a, b) => Math.max(a, b))])(all.map(p => map(p[n])));
        let [x0, x1] = reach(figure.xlim, 0, log),
            [y0, y1] = reach(figure.ylim, 1, v => v);
        if (!figure.xlim) [x0, x1] = [x0 - 0.1, x1 + 0.1];
        if (!figure.ylim) [y0, y1] = [y0 - (y1 - y0 || 1) * 0.08, y1 + (y1 - y0 || 1) * 0.08];
        const X = v => left + ((log(v) - x0) / (x1 - x0)) * (W - left - right),
            Y = v => H - bottom - ((v - y0) / (y1 - y0)) * (H - top - bottom);
        const drawing = frame(box, figure.title, W, H);
        for (const v of steps(y0, y1)) {
            drawing.append(
                svg("line", { x1: left, x2: W - right, y1: Y(v), y2: Y(v), class: "rule" }),
                svg("text", { x: left - 6, y: Y(v) + 4, "text-anchor": "end" }, short(v)),
            );
        }
        const decades = [1e-3, 1e-2, 0.1, 1, 10, 100]
            .flatMap(d => [d, 2 * d, 5 * d])
            .filter(v => log(v) >= x0 && log(v) <= x1);
        const places = ticked.length
            ? ticked.map((name, n) => [n, name])
            : (figure.log ? decades : steps(x0, x1)).map(v => [v, short(v)]);
        for (const [v, name] of places) {
            const at = slanted
                ? { transform: `translate(${X(v)} ${H - bottom + 12}) rotate(-45)`, "text-anchor": "end" }
                : { x: X(v), y: H - bottom + 16, "text-anchor": "middle" };
            drawing.append(svg("text", at, name.length > 16 ? name.slice(0, 15) + "…" : name));
        }
        drawing.append(svg("line", { x1: left, x2: W - right, y1: H - bottom, y2: H - bottom, class: "axis" }));
        if (figure.x)
            drawing.append(svg("text", { x: (left + W - right) / 2, y: H - 4, "text-anchor": "middle" }, figure.x));
        if (figure.y)
            drawing.append(
                svg(
                    "text",
                    { transform: `translate(11 ${(top + H - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
                    figure.y,
                ),
            );
        for (const [x, low, high] of figure.spans ?? [])
            drawing.append(
                svg("line", { x1: X(x), x2: X(x), y1: Y(low), y2: Y(high), class: "axis", "stroke-width": 2 }),
            );
        const points = [];
        figure.series.forEach((s, n) => {
            const own = colour(n),
                marks = s.points.map(([x, y, note]) => ({
                    x: X(x),
                    y: Y(y),
                    text: [
                        note,
                        s.name,
                        ...(ticked.length ? [] : [`${figure.x} ${short(x)}`]),
                        `${figure.y} ${short(y)}`,
                    ]
                        .filter(Boolean)
                        .join(" · "),
                }));
            if (s.mark.includes("line"))
                drawing.append(
                    svg("polyline", {
                        points: marks.map(p => `${p.x.toFixed(1)},${p.y.toFixed(1)}`).join(" "),
                        fill: "none",
                        stroke: own,
                        "stroke-width": 1.6,
                    }),
                );
            for (const p of s.mark.includes("dots") ? marks : [])
                drawing.append(svg("circle", { cx: p.x, cy: p.y, r: 4, fill: own }));
            for (const p of s.mark === "diamonds" ? marks : [])
                drawing.append(
                    svg("path", { d: `M${p.x} ${p.y - 6}l6 6l-6 6l-6-6Z`, fill: "var(--paper)", stroke: "var(--ink)" }),
                );
            points.push(...marks);
        });
        box.append(
            element(
                "ul",
                { className: "legend" },
                ...figure.series.map((s, n) => {
                    const key = element("i", {});
                    key.style.background = s.mark === "diamonds" ? "var(--ink)" : colour(n);
                    return element("li", {}, key, s.name);
                }),
            ),
        );
        readable(box, drawing, points);
    }

    function bars(box, figure) {
        const kinds = [...new Set(figure.bars.map(b => b.kind))],
            W = 900,
            row = 26,
            left = 300,
            H = figure.bars.length * row + 24;
        const most = figure.bars.reduce((m, b) => Math.max(m, b.value, b.ends[1] ?? 0), 5),
            X = v => left + (v / most) * (W - left - 60);
        const drawing = frame(box, figure.title, W, H),
            points = [];
        figure.bars.forEach((b, n) => {
            const y = n * row + 4,
                [low, high] = b.ends,
                name = [b.name, b.kind].filter(Boolean).join(" · ");
            drawing.append(
                svg(
                    "text",
                    { x: left - 8, y: y + 14, "text-anchor": "end" },
                    name.length > 48 ? name.slice(0, 47) + "…" : name,
                ),
            );
            drawing.append(
                svg("rect", { x: left, y, width: X(b.value) - left, height: 18, fill: colour(kinds.indexOf(b.kind)) }),
            );
            if (low !== null)
                drawing.append(svg("line", { x1: X(low), x2: X(high), y1: y + 9, y2: y + 9, stroke: "var(--ink)" }));
            drawing.append(svg("text", { x: X(high ?? b.value) + 6, y: y + 14 }, b.value.toFixed(1)));
            points.push({
                tall: true,
                from: y - 4,
                to: y + 22,
                x: X(b.value),
                y,
                text:
                    `${name}: ${b.value.toFixed(1)} %` +
                    (low === null ? "" : ` [${low.toFixed(1)}, ${high.toFixed(1)}]`),
            });
        });
        readable(box, drawing, points);
    }

    // groups: {name, colour, values}; counts of all are drawn over each other. Returns the scale of its x axis.
    function histogram(box, { title, groups, line, low, high, W = 220, H = 110, bins = 25, unit = short }) {
        const drawing = frame(box, title, W, H),
            width = (high - low) / bins || 1,
            base = H - 16;
        const counts = groups.map(g => {
            const c = new Array(bins).fill(0);
            for (const v of g.values) c[Math.min(Math.max(Math.floor((v - low) / width), 0), bins - 1)]++;
            return c;
        });
        const most = Math.max(...counts.flat(), 1),
            X = v => 2 + ((v - low) / (high - low || 1)) * (W - 4),
            points = [];
        counts.forEach((c, g) =>
            c.forEach((n, i) => {
                if (n)
                    drawing.append(
                        svg("rect", {
                            x: X(low + i * width),
                            width: (W - 4) / bins,
                            y: base - (n / most) * (base - 4),
                            height: (n / most) * (base - 4),
                            fill: groups[g].colour,
                            opacity: 0.65,
                        }),
                    );
            }),
        );
        for (let i = 0; i < bins; i++) {
            const said = groups.map((g, n) => `${counts[n][i]} ${g.name}`).join(", "),
                from = low + i * width;
            points.push({
                x: X(from + width / 2),
                y: base,
                wide: true,
                from: X(from),
                to: X(from + width),
                text: `${unit(from)} to ${unit(from + width)}: ${said}`,
            });
        }
        drawing.append(
            svg("line", { x1: 0, x2: W, y1: base, y2: base, class: "axis" }),
            svg("text", { x: 2, y: H - 4 }, unit(low)),
            svg("text", { x: W - 2, y: H - 4, "text-anchor": "end" }, unit(high)),
        );
        if (line !== null)
            drawing.append(
                svg("line", {
                    x1: X(line),
                    x2: X(line),
                    y1: 0,
                    y2: base,
                    stroke: "var(--ink)",
                    "stroke-dasharray": "4 3",
                }),
            );
        readable(box, drawing, points);
    }

    function all(figures) {
        for (const place of document.querySelectorAll("[data-figures]")) {
            for (const figure of figures[place.dataset.figures] ?? []) {
                const broad = figure.bars || (figure.ticks ?? []).length > 6,
                    box = element("div", { className: broad ? "chart broad" : "chart" });
                box.style.minHeight = "200px";
                place.append(box);
                lazily(box, () => {
                    box.style.minHeight = "";
                    (figure.bars ? bars : plot)(box, figure);
                });
            }
        }
    }
    return { all, histogram, lazily, element, svg, short };
})();
