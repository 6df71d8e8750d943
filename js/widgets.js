// What the other scripts ask of a node's widgets.

export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}

// A value that comes over a link is not known here.
export function isLinked(node, name) {
  return node.inputs?.some((input) => input.widget?.name === name && input.link != null) ?? false;
}

// Calls `after` whenever the object's own `name` function has run.
export function follow(object, name, after) {
  const before = object[name];
  object[name] = function (...args) {
    const result = before?.apply(this, args);
    after();
    return result;
  };
}
