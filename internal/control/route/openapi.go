package route

import (
	"encoding"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"larder/internal/control/access"
)

// OpenAPIPath is where the description of the API is.
const OpenAPIPath = "/api/larder/v1/openapi.json"

type object = map[string]any

// OpenAPI describes the routes whose path begins with one of the prefixes, as
// an OpenAPI 3.1 document. It is made of the table that answers, so the two
// cannot differ.
func OpenAPI(routes []Route, title, version string, prefixes ...string) ([]byte, error) {
	s := schemas{defs: object{}, names: map[reflect.Type]string{}}
	paths := object{}
	for _, r := range routes {
		if !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(r.Path, p) }) {
			continue
		}
		path := strings.ReplaceAll(r.Path, "...}", "}")
		item, _ := paths[path].(object)
		if item == nil {
			item = object{}
			paths[path] = item
		}
		item[strings.ToLower(r.Method)] = s.operation(r, path)
	}
	return json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info":    object{"title": title, "version": version},
		"paths":   paths,
		"components": object{
			"schemas": s.defs,
			"securitySchemes": object{
				"bearer": object{"type": "http", "scheme": "bearer", "description": "A token of larder control token create, or one that /{tenant}/oauth2/v2.0/token gave for a client secret."},
				"node":   object{"type": "mutualTLS", "description": "The identity that a node got when it registered."},
			},
		},
	}, "", "  ")
}

func (s *schemas) operation(r Route, path string) object {
	var params []object
	for seg := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(seg, "{"); ok {
			params = append(params, object{"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": object{"type": "string"}})
		}
	}
	for _, q := range r.Query {
		schema := object{"type": "string"}
		switch q.Type {
		case "", "string":
		case "date-time":
			schema["format"] = "date-time"
		default:
			schema["type"] = q.Type
		}
		params = append(params, object{"name": q.Name, "in": "query", "required": q.Required, "description": q.Does, "schema": schema})
	}
	status := r.Status
	if status == 0 {
		status = http.StatusOK
	}
	answer := object{"description": http.StatusText(status)}
	switch {
	case r.Type != "":
		answer["content"] = object{r.Type: object{"schema": object{"type": "string"}}}
	case r.Answer != nil:
		answer["content"] = object{"application/json": object{"schema": s.of(reflect.TypeOf(r.Answer))}}
	}
	op := object{
		"operationId": r.Name,
		"summary":     r.Does,
		"responses": object{
			strconv.Itoa(status): answer,
			"default":            object{"description": "An error", "content": object{"application/json": object{"schema": s.of(reflect.TypeFor[Envelope]())}}},
		},
		"x-larder-needs": r.Needs,
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	if r.Body != nil {
		op["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": s.of(reflect.TypeOf(r.Body))}}}
	}
	switch r.Needs {
	case access.Public:
		op["security"] = []object{}
	case access.AsNode:
		op["security"] = []object{{"node": []string{}}}
	default:
		op["security"] = []object{{"bearer": []string{}}}
	}
	return op
}

// schemas are the JSON Schemas of Go types, each named struct once.
type schemas struct {
	defs  object
	names map[reflect.Type]string
}

func (s *schemas) of(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage]():
		return object{}
	}
	if t.Kind() != reflect.Pointer && t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "format": "int64"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return s.named(t)
	}
	return object{}
}

func (s *schemas) named(t reflect.Type) object {
	if t.Name() == "" {
		return s.fields(t)
	}
	name, ok := s.names[t]
	if !ok {
		name = t.Name()
		for i := 2; s.defs[name] != nil; i++ {
			name = t.Name() + strconv.Itoa(i)
		}
		if base, _, generic := strings.Cut(name, "["); generic {
			elem := name[strings.LastIndexAny(name, "./")+1:]
			name = base + "Of" + strings.TrimSuffix(elem, "]")
		}
		s.names[t] = name
		s.defs[name] = object{} // taken, for types that hold themselves
		s.defs[name] = s.fields(t)
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func (s *schemas) fields(t reflect.Type) object {
	props := object{}
	var required []string
	var add func(t reflect.Type)
	add = func(t reflect.Type) {
		for i := range t.NumField() {
			f := t.Field(i)
			tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous && tag == "" {
				inner := f.Type
				if inner.Kind() == reflect.Pointer {
					inner = inner.Elem()
				}
				if inner.Kind() == reflect.Struct {
					add(inner)
					continue
				}
			}
			if !f.IsExported() || tag == "-" {
				continue
			}
			if tag == "" {
				tag = f.Name
			}
			props[tag] = s.of(f.Type)
			if !strings.Contains(options, "omit") && f.Type.Kind() != reflect.Pointer {
				required = append(required, tag)
			}
		}
	}
	add(t)
	o := object{"type": "object", "properties": props}
	if len(required) > 0 {
		slices.Sort(required)
		o["required"] = slices.Compact(required)
	}
	return o
}
