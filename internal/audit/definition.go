package audit

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tbapi"
)

// analysis reads the nodes that a pipe's endpoint depends on, those of other pipes included.
type analysis struct {
	ctx    context.Context //nolint:containedctx // lives for one call
	lookup func(context.Context, string) (*tbapi.Definition, error)
	root   *tbapi.Definition
	names  []string // the fixed parameters

	nodes map[string]*parsedNode // by label
	err   error                  // of a lookup
}

type parsedNode struct {
	pipe     *tbapi.Definition
	items    []item
	paths    []path
	variants []variant
	why      *why
}

func newAnalysis(ctx context.Context, root *tbapi.Definition, names []string, lookup func(context.Context, string) (*tbapi.Definition, error)) *analysis {
	return &analysis{ctx: ctx, lookup: lookup, root: root, names: names, nodes: map[string]*parsedNode{}}
}

// maxSQL bounds the bytes of SQL that come out of all the ways through one template.
const maxSQL = 8 << 20

// label names a node in messages: those of other pipes with their pipe.
func (a *analysis) label(pipe *tbapi.Definition, node string) string {
	if pipe == a.root {
		return node
	}
	return pipe.Name + "." + node
}

func (a *analysis) node(pipe *tbapi.Definition, name string) (*parsedNode, string) {
	label := a.label(pipe, name)
	if n, ok := a.nodes[label]; ok {
		return n, label
	}
	n := &parsedNode{pipe: pipe}
	a.nodes[label] = n
	written, _ := pipe.Node(name)
	if err := n.read(written.SQL, a.names); err != nil {
		n.why = notProven(err.Error())
		n.why.node = label
	}
	return n, label
}

func (n *parsedNode) read(sql string, names []string) error {
	var err error
	if n.items, err = parseTemplate(sql); err != nil {
		return err
	}
	if n.paths, err = expand(n.items, names); err != nil {
		return err
	}
	total := 0
	for _, p := range n.paths {
		if p.aborts {
			continue
		}
		sql, err := lexSQL(p.pieces)
		if err != nil {
			return err
		}
		for _, q := range p.pieces {
			total += len(q.text) + 1
		}
		if total > maxSQL {
			return errPaths
		}
		q, err := parseQuery(sql.tokens, scope{}, 0)
		if err != nil {
			return err
		}
		n.variants = append(n.variants, variant{q, p.describe(), p.set, cmp.Or(p.loose, sql.loose)})
	}
	return nil
}

// relation implements resolver.
func (a *analysis) relation(name, from string) ([]variant, string, *why) {
	pipe := a.root
	if n, ok := a.nodes[from]; ok {
		pipe = n.pipe
	}
	if _, ok := pipe.Node(name); !ok {
		other, err := a.pipe(name)
		if err != nil {
			a.err = err
			return nil, "", notProven("the definition of `" + name + "` could not be read")
		}
		if other == nil {
			return nil, "", nil
		}
		if other.Endpoint == "" {
			return nil, "", notProven("the pipe `" + name + "` is read, which has no endpoint")
		}
		pipe, name = other, other.Endpoint
	}
	n, label := a.node(pipe, name)
	if n.why != nil {
		return nil, label, n.why
	}
	if n.variants == nil {
		return []variant{}, label, nil
	}
	return n.variants, label, nil
}

// pipe looks a name up that is no node; nil for a data source.
func (a *analysis) pipe(name string) (*tbapi.Definition, error) {
	if strings.Contains(name, ".") {
		return nil, nil //nolint:nilnil // no pipe is an answer
	}
	if name == a.root.Name {
		return a.root, nil
	}
	d, err := a.lookup(a.ctx, name)
	if errors.Is(err, tbapi.ErrNoPipe) {
		return nil, nil //nolint:nilnil // as above
	}
	return d, err
}

// prove returns what keeps the endpoint from being restricted by the parameter, and the parameter from being one that a call cannot
// leave out.
func (a *analysis) prove(param string) []*why {
	p := prover{resolver: a, param: param, proofs: map[string]finding{}, passed: map[string]bool{}}
	n, label := a.node(a.root, a.root.Endpoint)
	var whys []*why
	if n.why != nil {
		whys = append(whys, n.why)
	} else if f := p.variants(n.variants, label); f.why != nil {
		whys = append(whys, f.why)
	}
	a.readNamed(a.root.Endpoint, map[string]bool{})
	use := a.usage(param)
	if !use.mentioned && (len(whys) == 0 || whys[0].certain()) {
		if len(whys) == 0 {
			return nil // it reads nothing that belongs to anybody
		}
		return []*why{{code: CodeUnused, text: "no node uses it, so it restricts nothing", node: whys[0].node}}
	}
	if use.fallback != "" {
		whys = append(whys, &why{code: CodeDefault, text: "it has a default, which is what a call without it reads", node: use.fallback})
	}
	if use.mentioned && !use.required {
		whys = append(whys, &why{code: CodeNotRequired, text: "it is not marked required=True where every call comes by", node: label})
	}
	return whys
}

// readNamed reads the nodes that a node's text names, and those that theirs name: the proof may not have come to all of them.
func (a *analysis) readNamed(from string, seen map[string]bool) {
	seen[from] = true
	written, _ := a.root.Node(from)
	for _, other := range a.root.Nodes {
		if !seen[other.Name] && regexp.MustCompile(`\b`+regexp.QuoteMeta(other.Name)+`\b`).MatchString(written.SQL) {
			a.node(a.root, other.Name)
			a.readNamed(other.Name, seen)
		}
	}
}

// usage is how the nodes treat a parameter.
type usage struct {
	mentioned, required bool
	fallback            string // a node in which it has a default
}

func (a *analysis) usage(param string) usage {
	var u usage
	for label, n := range a.nodes {
		if n.guards(param) {
			u.required = true
		}
		walk(n.items, func(e *expr, _ bool) {
			u.mentioned = u.mentioned || e.mentions(param)
			for _, t := range typedIn(e) {
				if t.param == param && t.hasDefault && (u.fallback == "" || label < u.fallback) {
					u.fallback = label
				}
			}
		})
	}
	return u
}

// guards reports whether no way through the node can be gone to its end without the parameter.
func (n *parsedNode) guards(param string) bool {
	return len(n.paths) > 0 && !slices.ContainsFunc(n.paths, func(p path) bool {
		if p.aborts || slices.Contains(p.choices, choice{"defined(" + param + ")", true}) {
			return false
		}
		return !slices.ContainsFunc(p.pieces, func(q piece) bool {
			return q.out != nil && slices.ContainsFunc(typedIn(q.out), func(t typed) bool { return t.param == param && t.required && !t.hasDefault })
		})
	})
}

// walk calls f with every expression, and whether it is a condition.
func walk(items []item, f func(e *expr, condition bool)) {
	for _, it := range items {
		switch it := it.(type) {
		case output:
			f(it.value, false)
		case assign:
			f(it.value, false)
		case loop:
			f(it.over, false)
			walk(it.body, f)
		case branch:
			for _, a := range it.arms {
				if a.when != nil {
					f(a.when.expr, true)
				}
				walk(a.body, f)
			}
		}
	}
}

// typedIn lists the typed parameters in an expression, also inside other calls.
func typedIn(e *expr) []typed {
	if t, ok := e.typedParam(); ok {
		return []typed{t}
	}
	var found []typed
	for _, a := range e.args {
		found = append(found, typedIn(a.value)...)
	}
	return found
}

// Use is what a pipe's nodes, and those of the pipes that it reads, make of parameters.
type Use struct {
	Unused   []string // fixed parameters of which they make no use at all
	Required []string // other parameters that they cannot do without, sorted
}

// UseOf looks at a pipe that is given some fixed parameters.
func UseOf(ctx context.Context, d *tbapi.Definition, fixed []string, lookup func(context.Context, string) (*tbapi.Definition, error)) (Use, error) {
	an := newAnalysis(ctx, d, fixed, lookup)
	var u Use
	for _, param := range fixed {
		if slices.ContainsFunc(an.prove(param), func(w *why) bool { return w.code == CodeUnused }) {
			u.Unused = append(u.Unused, param)
		}
	}
	for _, n := range an.nodes {
		walk(n.items, func(e *expr, _ bool) {
			for _, t := range typedIn(e) {
				if t.required && !t.hasDefault && !slices.Contains(fixed, t.param) {
					u.Required = append(u.Required, t.param)
				}
			}
		})
	}
	slices.Sort(u.Required)
	u.Required = slices.Compact(u.Required)
	return u, an.err
}
