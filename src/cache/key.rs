//! What makes two requests the same.
//!
//! Always: the parts are framed, so that no two different requests give the same bytes to the hash; the hash is
//! SHA-256, so that nobody can make two that collide and be answered with another's answer.

use sha2::{Digest, Sha256};

use crate::tensor::Tensor;

/// Names a request to one load of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub(super) load: u64,
    digest: [u8; 32],
}

impl Key {
    /// The key of checked inputs, in the order of the signature, and of the outputs asked for, ascending.
    ///
    /// Cost: one pass over the bytes, 1 to 2 GB/s where the processor has instructions for SHA-256. Comparing whole
    /// requests instead would take as long, and keep every input in memory beside its answer.
    pub(super) fn new(load: u64, inputs: &[Option<Tensor>], outputs: &[usize]) -> Self {
        let mut hasher = Sha256::new();
        let number = |n: usize| (n as u64).to_le_bytes();
        hasher.update(number(outputs.len()));
        outputs.iter().for_each(|index| hasher.update(number(*index)));
        for input in inputs {
            // An input that is left out has no type, which none that is there has.
            let Some(tensor) = input else {
                hasher.update([u8::MAX]);
                continue;
            };
            hasher.update([tensor.datatype() as u8]);
            hasher.update(number(tensor.shape().rank()));
            tensor.shape().dims().iter().for_each(|dim| hasher.update(dim.to_le_bytes()));
            hasher.update(number(tensor.data().len()));
            hasher.update(tensor.data());
        }
        Self { load, digest: hasher.finalize().into() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bytes::Bytes;

    use super::*;
    use crate::tensor::{DataType, Shape, strings};

    fn tensor(datatype: DataType, dims: &[i64], data: &[u8]) -> Option<Tensor> {
        let shape = Shape::from_dims(dims.iter().copied()).unwrap();
        Some(Tensor::new(datatype, shape, Bytes::copy_from_slice(data)).unwrap())
    }

    /// Load, inputs, outputs.
    type Request = (u64, Vec<Option<Tensor>>, &'static [usize]);

    fn u8s(data: &[u8]) -> Option<Tensor> {
        tensor(DataType::Uint8, &[data.len() as i64], data)
    }

    fn texts(elements: &[&str]) -> Option<Tensor> {
        let packed = strings::pack(elements.iter().map(|element| element.as_bytes()));
        tensor(DataType::Bytes, &[elements.len() as i64], &packed)
    }

    #[test]
    fn whatever_differs_in_a_request_differs_in_its_key() {
        let requests: [Request; 20] = [
            (1, vec![u8s(&[1, 2, 3, 4])], &[0]),
            (1, vec![u8s(&[1, 2, 3, 5])], &[0]),
            (1, vec![tensor(DataType::Int8, &[4], &[1, 2, 3, 4])], &[0]),
            (1, vec![tensor(DataType::Fp32, &[1], &[1, 2, 3, 4])], &[0]),
            (1, vec![tensor(DataType::Uint8, &[2, 2], &[1, 2, 3, 4])], &[0]),
            (1, vec![tensor(DataType::Uint8, &[4, 1], &[1, 2, 3, 4])], &[0]),
            (1, vec![tensor(DataType::Uint8, &[1, 4], &[1, 2, 3, 4])], &[0]),
            // The load stands for the version, its files and its config.
            (2, vec![u8s(&[1, 2, 3, 4])], &[0]),
            (1, vec![u8s(&[1, 2, 3, 4])], &[1]),
            (1, vec![u8s(&[1, 2, 3, 4])], &[0, 1]),
            (1, vec![u8s(&[1, 2, 3, 4])], &[]),
            // The same bytes, cut elsewhere.
            (1, vec![u8s(&[1, 2]), u8s(&[3, 4])], &[0]),
            (1, vec![u8s(&[1]), u8s(&[2, 3, 4])], &[0]),
            (1, vec![u8s(&[]), u8s(&[1, 2, 3, 4])], &[0]),
            (1, vec![u8s(&[1, 2, 3, 4]), u8s(&[])], &[0]),
            (1, vec![u8s(&[1, 2, 3, 4]), None], &[0]),
            (1, vec![None, u8s(&[1, 2, 3, 4])], &[0]),
            (1, vec![texts(&["ab", "c"])], &[0]),
            (1, vec![texts(&["a", "bc"])], &[0]),
            (1, vec![texts(&["abc"])], &[0]),
        ];
        let keys = requests.iter().map(|(load, inputs, outputs)| Key::new(*load, inputs, outputs));
        assert_eq!(keys.collect::<HashSet<_>>().len(), requests.len());
        for (load, inputs, outputs) in &requests {
            assert_eq!(Key::new(*load, inputs, outputs), Key::new(*load, &inputs.clone(), outputs));
        }
    }

    #[test]
    fn an_input_cannot_pass_for_two() {
        // What the second input would have put before its bytes, inside the first.
        let framed = [
            &[1u8][..],
            &[DataType::Uint8 as u8],
            &1u64.to_le_bytes(),
            &1i64.to_le_bytes(),
            &1u64.to_le_bytes(),
            &[2],
        ]
        .concat();
        assert_ne!(Key::new(1, &[u8s(&framed)], &[0]), Key::new(1, &[u8s(&[1]), u8s(&[2])], &[0]));
    }
}
