// Turns every token view on the page into circuitsvis's component; `CircuitsVis` is circuitsvis's own script.
//
// circuitsvis 1.43.3 is put right here, and only here:
// - it sets a token's text as raw HTML but its hover as plain text, shows no special characters, and knows neither ids
//   nor positions: text, colours and hover come from the view's own boxes;
// - its component for many layers colours by its own red and blue, starts at the first layer, keeps the first layer's
//   bounds for all, offers fields for bounds in which an empty field breaks the colours, and leaves 20 px for every
//   layer empty below: one scale is given, the fields are left out;
// - it finds the place to draw in by id on the whole page, where JupyterLab may show one output twice.
// A view stays as it was unless the component has drawn as many tokens as there are.

const template = CircuitsVis.ColoredTokens({ tokens: [], values: [], minValue: -1, maxValue: 1 });
const element = (type, props) => ({ ...template, type, key: props.key ?? null, props });
const withProps = (made, props) => ({ ...made, props: { ...made.props, ...props } });

const styleOf = (node) =>
  Object.fromEntries([...node.style].map((name) => [
    name.replace(/-([a-z])/g, (_, letter) => letter.toUpperCase()), node.style.getPropertyValue(name),
  ]));

const HOVER = {
  background: "#333", color: "white", padding: "6px 9px", borderRadius: 4, zIndex: 1000, maxWidth: "40em",
  fontFamily: "sans-serif", fontSize: 12, lineHeight: 1.4, textAlign: "left", direction: "ltr", whiteSpace: "pre-wrap",
  overflowWrap: "anywhere", pointerEvents: "none", marginTop: 12, width: "max-content",
};

const ROWS = 8; // layers in a column of the hover

const corrected = new Map(); // circuitsvis's two components for a token, each with our text and hover
function correct(Token) {
  if (!corrected.has(Token)) {
    corrected.set(Token, ({ box, hover, ...props }) => {
      const made = Token(props);
      const [trigger, tooltip] = made.props.children;
      const [span, breaks] = trigger.props.children;
      const inner = { style: styleOf(box), dangerouslySetInnerHTML: { __html: box.innerHTML } };
      const text = { ...span, type: "bdi", props: inner };
      const over = tooltip && withProps(tooltip, { style: { ...tooltip.props.style, ...HOVER }, children: hover() });
      return withProps(made, { children: [withProps(trigger, { children: [text, breaks] }), over] });
    });
  }
  return corrected.get(Token);
}

function component(data, still) {
  const layers = [...still.querySelectorAll(".caa-layer")];
  const boxes = layers.map((layer) => [...layer.querySelectorAll("bdi")]);

  function hover(token, layer) {
    const words = boxes[layer][token].title;
    if (data.layers.length === 1) return words;
    const rows = data.layers.map((label, at) => {
      const style = { fontWeight: at === layer ? "bold" : "normal" };
      return element("div", { key: label, style, children: `${label}  ${data.numbers[token][at]}` });
    });
    const style = { columnCount: Math.ceil(data.layers.length / ROWS), columnGap: 18, marginTop: 4 };
    return [
      element("div", { key: "words", children: words }),
      element("div", { key: "layers", style, children: rows }),
    ];
  }

  // circuitsvis's list of tokens, laid out like the boxes: text by text, each in its own direction
  function arranged(list, layer) {
    let first = 0;
    const texts = [...layers[layer].children].map((text, at) => {
      const [line, head] = [...text.children].reverse();
      const tokens = list.props.children.slice(first, (first += line.querySelectorAll("bdi").length));
      const shown = tokens.map((each) => {
        const token = Number(each.key);
        const ours = { box: boxes[layer][token], hover: () => hover(token, layer) };
        return { ...withProps(each, ours), type: correct(each.type) };
      });
      const above = head && element("div", { style: styleOf(head), children: head.textContent });
      const below = element("div", { dir: line.dir, style: styleOf(line), children: shown });
      return element("div", { key: String(at), style: styleOf(text), children: [above, below] });
    });
    return withProps(list, { style: styleOf(layers[layer]), children: texts });
  }

  if (data.layers.length === 1) {
    const values = data.values.map((row) => row[0]);
    const given = { tokens: data.tokens, values, minValue: -data.reach, maxValue: data.reach };
    return () => arranged(CircuitsVis.ColoredTokens(given), 0);
  }
  const bounds = data.layers.map(() => data.reach);
  let started = false;
  return () => {
    const made = CircuitsVis.ColoredTokensMulti({
      tokens: data.tokens, values: data.values, labels: data.layers,
      positiveBounds: bounds, negativeBounds: bounds.map((bound) => -bound),
    });
    const parts = made.props.children;
    const [choice, list] = [parts[0], parts[parts.length - 1]];
    if (!started) choice.props.setSelectedValue(data.start);
    started = true;
    // A notebook cuts off a hover that is higher than the output it belongs to.
    const minHeight = 100 + 17 * Math.min(ROWS, data.layers.length);
    const shown = arranged(list.type(list.props), choice.props.selectedValue);
    return withProps(made, { style: { minHeight }, children: [choice, shown] });
  };
}

let drawn = 0;
function upgrade(view) {
  const still = view.querySelector(".caa-still");
  const data = JSON.parse(view.querySelector('script[type="application/json"]').textContent);
  const live = document.createElement("div");
  live.id = `caa-live-${(drawn += 1)}-${Math.random().toString(36).slice(2)}`;
  live.className = "caa-live";
  live.style.display = "none";
  view.insertBefore(live, still);
  const watch = new MutationObserver(() => {
    if (live.querySelectorAll("bdi").length !== data.tokens.length) return;
    watch.disconnect();
    still.style.display = "none";
    live.style.display = "";
  });
  watch.observe(live, { childList: true, subtree: true });
  CircuitsVis.render(live.id, component(data, still));
}

const waiting = window.caaLensViews || [];
window.caaLensViews = {
  push(view) {
    if (view.querySelector(".caa-live")) return;
    try {
      upgrade(view);
    } catch (problem) {
      console.warn("caa_lens: this token view stays without circuitsvis's component:", problem);
    }
  },
};
waiting.forEach(window.caaLensViews.push);
