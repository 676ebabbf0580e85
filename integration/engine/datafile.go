package engine

import (
	"fmt"
	"regexp"
	"strings"
)

// Column is a column of a data source.
type Column struct {
	Name    string
	Type    string
	Path    string // where the Events API finds it in a row: "$.payload"
	Default string // SQL, "" without
}

// Datasource is a .datasource file.
type Datasource struct {
	Name         string
	Description  string
	Columns      []Column
	Engine       string
	SortingKey   string
	PartitionKey string
}

// Kind is what a pipe's last node is for.
type Kind string

// The kinds that are understood. A copy fills a data source.
const (
	KindEndpoint Kind = "endpoint"
	KindCopy     Kind = "copy"
)

// Node is one step of a pipe, with its SQL as written: a template if it starts with %.
type Node struct {
	Name        string
	Description string
	SQL         string
	Kind        Kind   // "": only for the nodes after it
	Target      string // of a copy: the data source that it fills
}

// Pipe is a .pipe file.
type Pipe struct {
	Name        string
	Description string
	Nodes       []Node
}

// node is the node that is for that, or nil.
func (p *Pipe) node(k Kind) *Node {
	for n := range p.Nodes {
		if p.Nodes[n].Kind == k {
			return &p.Nodes[n]
		}
	}
	return nil
}

// instruction is a word, what follows it on its line, and the indented block below if that is ">".
type instruction struct {
	line int
	word string
	rest string
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// instructions splits a file. A block lasts while lines are indented or empty.
func instructions(text string) ([]instruction, error) {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	var found []instruction
	for n := 0; n < len(lines); n++ {
		line := strings.TrimSpace(lines[n])
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if indented(lines[n]) {
			return nil, fmt.Errorf("line %d is indented, but belongs to no block", n+1)
		}
		in := instruction{line: n + 1}
		in.word, in.rest, _ = strings.Cut(line, " ")
		in.rest = strings.TrimSpace(in.rest)
		if in.rest == ">" {
			end := n + 1
			for end < len(lines) && (indented(lines[end]) || strings.TrimSpace(lines[end]) == "") {
				end++
			}
			in.rest = dedent(lines[n+1 : end])
			if in.rest == "" {
				return nil, fmt.Errorf("line %d: the block of %s is empty", n+1, in.word)
			}
			n = end - 1
		}
		found = append(found, in)
	}
	return found, nil
}

func indented(line string) bool { return strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") }

// dedent takes off what all lines are indented by.
func dedent(lines []string) string {
	cut := -1
	for _, l := range lines {
		if own := len(l) - len(strings.TrimLeft(l, " \t")); strings.TrimSpace(l) != "" && (cut < 0 || own < cut) {
			cut = own
		}
	}
	out := make([]string, len(lines))
	for n, l := range lines {
		out[n] = strings.TrimRight(l[min(max(cut, 0), len(l)):], " \t")
	}
	return strings.Trim(strings.Join(out, "\n"), "\n")
}

// ParseDatasource reads a .datasource file.
func ParseDatasource(name, text string) (*Datasource, error) {
	if !identifier.MatchString(name) {
		return nil, fmt.Errorf("%q is no name of a data source", name)
	}
	ins, err := instructions(text)
	if err != nil {
		return nil, err
	}
	d := &Datasource{Name: name}
	texts := map[string]*string{
		"DESCRIPTION": &d.Description, "ENGINE": &d.Engine, "ENGINE_SORTING_KEY": &d.SortingKey,
		"ENGINE_PARTITION_KEY": &d.PartitionKey,
	}
	for _, in := range ins {
		to, known := texts[in.word]
		switch {
		case in.word == "SCHEMA" && d.Columns == nil:
			if d.Columns, err = parseSchema(in.rest); err != nil {
				return nil, fmt.Errorf("line %d: %w", in.line, err)
			}
		case known && *to == "":
			*to = strings.Trim(in.rest, `"`)
		default:
			return nil, fmt.Errorf("line %d: %s is unknown or there twice", in.line, in.word)
		}
	}
	if len(d.Columns) == 0 || d.Engine != "MergeTree" || d.SortingKey == "" {
		return nil, fmt.Errorf("data source %s needs SCHEMA, ENGINE \"MergeTree\" and ENGINE_SORTING_KEY", name)
	}
	return d, nil
}

var column = regexp.MustCompile("^`?([A-Za-z_][A-Za-z0-9_]*)`?\\s+([^`]+?)(?:\\s+`json:(\\$[^`]*)`)?(?:\\s+DEFAULT\\s+(.+))?$")

func parseSchema(block string) ([]Column, error) {
	var cols []Column
	for _, text := range splitTop(block) {
		text = strings.Join(strings.Fields(text), " ")
		m := column.FindStringSubmatch(text)
		if m == nil {
			return nil, fmt.Errorf("%q is no column", text)
		}
		cols = append(cols, Column{Name: m[1], Type: m[2], Path: m[3], Default: m[4]})
	}
	return cols, nil
}

// splitTop splits at the commas that are in no brackets and no quotes.
func splitTop(text string) []string {
	var parts []string
	var depth, start int
	var quote rune
	for n, c := range text {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"' || c == '`':
			quote = c
		case c == '(' || c == '[':
			depth++
		case c == ')' || c == ']':
			depth--
		case c == ',' && depth == 0:
			parts = append(parts, text[start:n])
			start = n + 1
		}
	}
	return append(parts, text[start:])
}

// ParsePipe reads a .pipe file.
func ParsePipe(name, text string) (*Pipe, error) {
	if !identifier.MatchString(name) {
		return nil, fmt.Errorf("%q is no name of a pipe", name)
	}
	ins, err := instructions(text)
	if err != nil {
		return nil, err
	}
	p := &Pipe{Name: name}
	for _, in := range ins {
		if err := p.add(in); err != nil {
			return nil, fmt.Errorf("line %d: %w", in.line, err)
		}
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Pipe) add(in instruction) error {
	if in.word == "NODE" {
		if !identifier.MatchString(in.rest) {
			return fmt.Errorf("%q is no name of a node", in.rest)
		}
		p.Nodes = append(p.Nodes, Node{Name: in.rest})
		return nil
	}
	if len(p.Nodes) == 0 {
		if in.word != "DESCRIPTION" || p.Description != "" {
			return fmt.Errorf("%s before the first NODE", in.word)
		}
		p.Description = in.rest
		return nil
	}
	return p.Nodes[len(p.Nodes)-1].add(in)
}

func (n *Node) add(in instruction) error {
	// A copy runs when it is told to, and replaces what there is: that is all that Start does.
	fixed := map[string]string{"COPY_SCHEDULE": "@on-demand", "COPY_MODE": "replace"}
	texts := map[string]*string{"DESCRIPTION": &n.Description, "SQL": &n.SQL, "TARGET_DATASOURCE": &n.Target}
	to, known := texts[in.word]
	switch {
	case known && *to == "":
		*to = in.rest
	case in.word == "TYPE" && n.Kind == "":
		n.Kind = Kind(strings.ToLower(in.rest))
		if n.Kind != KindEndpoint && n.Kind != KindCopy {
			return fmt.Errorf("a node of the type %q is not understood", in.rest)
		}
	case in.rest != fixed[in.word]:
		return fmt.Errorf("%s %s is unknown or there twice", in.word, in.rest)
	}
	return nil
}

func (p *Pipe) check() error {
	seen := map[string]bool{}
	typed := 0
	for _, n := range p.Nodes {
		if n.SQL == "" || seen[n.Name] {
			return fmt.Errorf("pipe %s: node %s has no SQL or is there twice", p.Name, n.Name)
		}
		seen[n.Name] = true
		if n.Kind != "" {
			typed++
		}
		if (n.Kind == KindCopy) != (n.Target != "") {
			return fmt.Errorf("pipe %s: TYPE copy and TARGET_DATASOURCE go together", p.Name)
		}
	}
	if typed != 1 {
		return fmt.Errorf("pipe %s: one node has to be an endpoint or a copy, not %d", p.Name, typed)
	}
	return nil
}
