use super::*;
use crate::proto::onnx::{OperatorSetIdProto, SparseTensorProto, TypeProto, ValueInfoProto};

fn value(name: &str, kind: i32) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: kind, shape: None };
    let r#type = Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)) });
    ValueInfoProto { name: name.into(), r#type }
}

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.into(),
        input: inputs.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

fn constant(name: &str, numbers: &[i64]) -> TensorProto {
    let dims = vec![numbers.len() as i64];
    TensorProto {
        name: name.into(),
        data_type: INT64,
        dims,
        int64_data: numbers.to_vec(),
        ..TensorProto::default()
    }
}

fn model(inputs: &[(&str, i32)], constants: &[TensorProto], nodes: Vec<NodeProto>) -> ModelProto {
    let graph = GraphProto {
        input: inputs.iter().map(|(name, kind)| value(name, *kind)).collect(),
        initializer: constants.to_vec(),
        node: nodes,
        ..GraphProto::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
    ModelProto { graph: Some(graph), opset_import, ..ModelProto::default() }
}

#[test]
fn division_is_a_hazard_unless_it_is_of_floats_or_by_a_harmless_constant() {
    let div = || vec![node("Div", &["a", "b"], "y")];
    let found = |inputs: &[(&str, i32)], constants: &[TensorProto]| hazards(&model(inputs, constants, div()));
    assert_eq!(found(&[("a", INT64), ("b", INT64)], &[]), ["Div"]);
    assert_eq!(found(&[("a", FLOAT), ("b", FLOAT)], &[]), [""; 0]);
    assert_eq!(found(&[("a", INT64)], &[constant("b", &[2, 7])]), [""; 0]);
    assert_eq!(found(&[("a", INT64)], &[constant("b", &[2, 0])]), ["Div"]);
    assert_eq!(found(&[("a", INT64)], &[constant("b", &[-1])]), ["Div"]);
    // An input that only has a default is anybody's.
    assert_eq!(found(&[("a", INT64), ("b", INT64)], &[constant("b", &[2])]), ["Div"]);
    assert_eq!(found(&[], &[]), ["Div"], "nothing is known of its type");
}

#[test]
fn of_a_name_that_is_defined_twice_nothing_is_known() {
    let div = || node("Div", &["a", "b"], "y");
    let harmless = || constant("b", &[2]);
    let minus_one = |attribute: &str| {
        let value = AttributeProto {
            name: attribute.into(),
            t: Some(constant("", &[-1])),
            r#type: TENSOR,
            ints: vec![-1],
            ..AttributeProto::default()
        };
        NodeProto { attribute: vec![value], ..node("Constant", &[], "b") }
    };
    let found =
        |constants: &[TensorProto], nodes: Vec<NodeProto>| hazards(&model(&[("a", INT64)], constants, nodes));
    assert_eq!(found(&[harmless()], vec![div()]), [""; 0]);
    for attribute in ["value", "value_ints"] {
        assert_eq!(found(&[harmless()], vec![div(), minus_one(attribute)]), ["Div"]);
        assert_eq!(found(&[harmless()], vec![minus_one(attribute), div()]), ["Div"]);
    }
    let mut first_wins = minus_one("value_ints");
    first_wins.attribute.push(AttributeProto {
        name: "value".into(),
        t: Some(harmless()),
        r#type: TENSOR,
        ..AttributeProto::default()
    });
    assert_eq!(found(&[], vec![first_wins, div()]), ["Div"]);
    let mut sparse = model(&[("a", INT64)], &[harmless()], vec![div()]);
    sparse.graph.as_mut().unwrap().sparse_initializer =
        vec![SparseTensorProto { values: Some(constant("b", &[-1])), indices: None }];
    assert_eq!(hazards(&sparse), ["Div"]);
}

#[test]
fn an_attribute_is_what_onnx_runtime_takes_it_for() {
    let of = |kind: i32| {
        let value = AttributeProto {
            name: "value".into(),
            t: Some(constant("", &[2])),
            ints: vec![-1],
            r#type: kind,
            ..AttributeProto::default()
        };
        let constant = NodeProto { attribute: vec![value], ..node("Constant", &[], "b") };
        hazards(&model(&[("a", INT64)], &[], vec![constant, node("Div", &["a", "b"], "y")]))
    };
    assert_eq!(of(TENSOR), [""; 0]);
    // Seven is INTS.
    assert_eq!(of(7), ["Div"]);
    let to =
        |kind: i32| AttributeProto { name: "to".into(), i: i64::from(kind), ..AttributeProto::default() };
    let cast = |attribute: Vec<AttributeProto>| {
        let cast = NodeProto { attribute, ..node("Cast", &["a"], "b") };
        hazards(&model(&[("a", INT64)], &[], vec![cast, node("Div", &["b", "b"], "y")]))
    };
    assert_eq!(cast(vec![to(FLOAT)]), [""; 0]);
    assert_eq!(cast(vec![to(FLOAT), to(INT64)]), ["an attribute twice"]);
}

#[test]
fn an_inner_graph_tells_nothing_of_an_outer_one() {
    const HIDDEN_IF: &str = "If to an unknown number of dimensions";
    let choice = |inner: GraphProto| {
        let branch =
            AttributeProto { name: "then_branch".into(), g: Some(inner), ..AttributeProto::default() };
        NodeProto { attribute: vec![branch], ..node("If", &["c"], "i") }
    };
    let shadowed = GraphProto { initializer: vec![constant("b", &[2])], ..GraphProto::default() };
    let nodes = vec![choice(shadowed), node("Div", &["a", "b"], "y")];
    assert_eq!(hazards(&model(&[("a", INT64)], &[constant("b", &[-1])], nodes)), ["Div", HIDDEN_IF]);
    // Of unknown type, but for what an inner graph says.
    let labels = || NodeProto { domain: "ai.onnx.ml".into(), ..node("LabelEncoder", &["a"], "q") };
    let said = GraphProto { value_info: vec![value("q", FLOAT)], ..GraphProto::default() };
    let float = TensorProto { data_type: FLOAT, ..constant("q", &[1]) };
    let defined = GraphProto { initializer: vec![float], ..GraphProto::default() };
    for inner in [said, defined] {
        let nodes = vec![labels(), choice(inner), node("Div", &["q", "a"], "y")];
        assert_eq!(hazards(&model(&[("a", INT64)], &[], nodes)), ["Div", HIDDEN_IF]);
    }
}

#[test]
fn types_are_followed_through_a_graph() {
    let through = |first: &str| {
        let nodes = vec![node(first, &["a"], "b"), node("Relu", &["b"], "c"), node("Mod", &["c", "d"], "y")];
        hazards(&model(&[("a", FLOAT)], &[], nodes))
    };
    assert_eq!(through("Identity"), [""; 0]);
    assert_eq!(through("Shape"), ["Mod"]);
}

#[test]
fn sizes_that_come_from_values_are_hazards() {
    for operator in ["ConstantOfShape", "Expand", "Tile", "Range", "Loop", "Resize", "Frobnicate"] {
        let nodes = vec![node(operator, &["a", "a"], "y")];
        assert_eq!(hazards(&model(&[("a", INT64)], &[], nodes)), [operator]);
    }
    let nodes = |size: i64| (vec![node("ConstantOfShape", &["s"], "y")], [constant("s", &[size, 16])]);
    let found = |size| hazards(&model(&[], &nodes(size).1, nodes(size).0));
    assert!(found(1000).is_empty() && !found(1 << 40).is_empty());
}

#[test]
fn sizes_that_values_of_inputs_choose_are_hazards_where_they_are_said() {
    let found = |inputs: &[(&str, i32)], nodes: Vec<NodeProto>| {
        hazards(&model(inputs, &[constant("two", &[2, 2]), constant("k", &[1])], nodes))
    };
    let chosen = [("a", FLOAT), ("s", INT64)];
    for operator in ["Slice", "TopK", "Split"] {
        assert_eq!(found(&chosen, vec![node(operator, &["a", "s"], "y")]), [operator]);
        assert_eq!(found(&chosen, vec![node(operator, &["a", "k"], "y")]), [""; 0]);
        assert_eq!(found(&chosen, vec![node(operator, &["a"], "y")]), [""; 0], "by attributes");
        // A default that requests may replace.
        let replaced = [("a", FLOAT), ("k", INT64)];
        assert_eq!(found(&replaced, vec![node(operator, &["a", "k"], "y")]), [operator]);
        // Worked out from sizes and constants, and from a value on the way.
        let through = |other: &str| {
            let sum = node("Add", &["size", other], "sum");
            vec![node("Shape", &["a"], "size"), sum, node(operator, &["a", "sum"], "y")]
        };
        assert_eq!(found(&chosen, through("k")), [""; 0]);
        assert_eq!(found(&chosen, through("s")), [operator]);
    }
    let last = node("Slice", &["a", "two", "two", "", "s"], "y");
    assert_eq!(found(&chosen, vec![last]), ["Slice"]);
    assert_eq!(found(&chosen, vec![node("NonZero", &["a"], "y")]), ["NonZero"]);
}

#[test]
fn inner_graphs_are_looked_into_and_foreign_domains_found() {
    let inner = GraphProto { node: vec![node("Loop", &[], "z")], ..GraphProto::default() };
    let branch = AttributeProto { name: "then_branch".into(), g: Some(inner), ..AttributeProto::default() };
    let mut choice = node("If", &["a"], "y");
    choice.attribute.push(branch);
    let mut looped = model(&[("a", BOOL)], &[], vec![choice]);
    assert!(hazards(&looped).iter().any(|hazard| hazard == "Loop"), "{:?}", hazards(&looped));
    assert_eq!(foreign_domain(&looped), None);
    let foreign = NodeProto { domain: "my.ops".into(), ..node("Add", &[], "q") };
    looped.graph.as_mut().unwrap().node[0].attribute[0].g.as_mut().unwrap().node.push(foreign);
    assert_eq!(foreign_domain(&looped).as_deref(), Some("my.ops"));
}

#[test]
fn results_grow_unless_each_operator_keeps_the_size() {
    let found = |nodes: Vec<NodeProto>| {
        grows(
            model(&[("a", FLOAT)], &[constant("one", &[1]), constant("two", &[2, 2])], nodes)
                .graph
                .as_ref()
                .unwrap(),
        )
    };
    assert!(!found(vec![node("Relu", &["a"], "b"), node("Mul", &["b", "one"], "y")]));
    assert!(found(vec![node("Mul", &["a", "two"], "y")]));
    assert!(found(vec![node("Add", &["a", "a"], "y")]), "broadcasting");
    assert!(found(vec![node("Concat", &["a", "a"], "y")]));
}

#[test]
fn a_default_that_requests_may_replace_is_no_constant() {
    let grown = |inputs: &[(&str, i32)]| {
        let mut model = model(inputs, &[constant("one", &[1])], vec![node("Add", &["a", "one"], "y")]);
        let graph = model.graph.as_mut().unwrap();
        graph.output.push(value("y", FLOAT));
        grows(graph)
    };
    assert!(!grown(&[("a", FLOAT)]));
    assert!(grown(&[("a", FLOAT), ("one", FLOAT)]));
}

#[test]
fn wider_elements_and_many_outputs_grow() {
    const UINT8: i32 = 2;
    const DOUBLE: i32 = 11;
    const STRING: i32 = 8;
    let casts = |from: i32, to: i32, count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("y{i}")).collect();
        let cast = |name: &String| {
            let to = AttributeProto { name: "to".into(), i: i64::from(to), ..AttributeProto::default() };
            NodeProto { attribute: vec![to], ..node("Cast", &["a"], name) }
        };
        let mut model = model(&[("a", from)], &[], names.iter().map(cast).collect());
        let graph = model.graph.as_mut().unwrap();
        graph.output = names.iter().map(|name| value(name, to)).collect();
        grows(graph)
    };
    for (from, to, count, expected) in [
        (FLOAT, FLOAT, 1, false),
        (FLOAT, FLOAT, 6, false),
        (FLOAT, FLOAT, 7, true),
        (FLOAT, DOUBLE, 1, false),
        (FLOAT, DOUBLE, 3, true),
        (UINT8, UINT8, 1, false),
        (BOOL, DOUBLE, 1, true),
        (UINT8, STRING, 1, true),
        (STRING, STRING, 1, true),
    ] {
        assert_eq!(casts(from, to, count), expected, "{count} times {from} to {to}");
    }
}

#[test]
fn an_unknown_number_of_dimensions_is_a_hazard() {
    let found = |node: NodeProto| {
        hazards(&model(&[("a", FLOAT), ("s", INT64)], &[constant("two", &[2, 2])], vec![node]))
    };
    for operator in ["Squeeze", "Reshape", "ReduceSum"] {
        assert!(found(node(operator, &["a", "two"], "y")).is_empty(), "{operator}");
        assert_eq!(found(node(operator, &["a", "s"], "y")).len(), 1, "{operator}");
    }
    assert_eq!(found(node("Squeeze", &["a"], "y")).len(), 1);
}

#[test]
fn large_borders_are_hazards() {
    let mut pool = node("MaxPool", &["a"], "y");
    let pads = |size| AttributeProto { name: "pads".into(), ints: vec![size], ..AttributeProto::default() };
    pool.attribute.push(pads(3));
    assert!(hazards(&model(&[("a", FLOAT)], &[], vec![pool.clone()])).is_empty());
    pool.attribute[0] = pads(1 << 40);
    assert_eq!(hazards(&model(&[("a", FLOAT)], &[], vec![pool])), ["MaxPool of a large size"]);
}
