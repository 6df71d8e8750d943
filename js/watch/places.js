// Where in a workflow a node is: the id under which the server executes it, inside subgraphs behind theirs ("5:31").

const nodesOf = (graph) => graph?.nodes ?? graph?._nodes ?? [];

// The nodes of a kind in a graph and in its subgraphs, as [id, node].
export function* nodesOfKind(graph, kind, prefix = "") {
  for (const node of nodesOf(graph)) {
    const id = `${prefix}${node.id}`;
    if (node.comfyClass === kind) yield [id, node];
    if (node.subgraph) yield* nodesOfKind(node.subgraph, kind, `${id}:`);
  }
}

// The node with this id, or undefined: it may have been deleted, or be in another workflow.
export function nodeAt(graph, id) {
  let node;
  for (const part of String(id).split(":")) {
    node = nodesOf(graph).find((other) => String(other.id) === part);
    graph = node?.subgraph;
  }
  return node;
}
